"""The registered model in a real SQLite store, written by several at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from calotype.project import Project
from calotype.releases.versions import Registry, over_again

WRITERS, TAGS = 4, 15


def test_all_who_write_the_same_new_tag_at_the_same_moment_succeed(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(store, registry_uri=store)
    client.create_registered_model("digits")
    registry = Registry(Project(tmp_path), client)
    start = Barrier(WRITERS, timeout=60)

    def write(writer: int) -> None:
        for number in range(TAGS):
            start.wait()
            registry.tag_model("digits", {f"tag-{number}": str(writer)})

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert len(client.get_registered_model("digits").tags) == TAGS


def test_a_write_is_repeated_after_a_collision_alone() -> None:
    calls: list[str] = []

    def collide(message: str) -> None:
        calls.append(message)
        if len(calls) == 1:
            raise MlflowException(message)

    over_again(lambda: collide("(sqlite3.IntegrityError) UNIQUE constraint failed"))
    assert len(calls) == 2
    calls.clear()
    with pytest.raises(MlflowException):
        over_again(lambda: collide("database is locked"))
