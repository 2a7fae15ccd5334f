"""Fifty windows of an inbox with twins, late and changed files, two workers at once and kills: both tables exact."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path

import deltalake
import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from calotype.project import Project

pytestmark = pytest.mark.slow

WINDOWS = 50
LONGEST_BATCH_S = 120.0


def batch(root: str, inbox: str) -> None:
    """One scheduled batch in a process of its own."""
    from calotype import params
    from calotype.predictions.scheduled import predict_inbox

    project = Project(Path(root))
    values = params.load(project.params)
    settled = values.predict.model_copy(update={"settle_s": 0.0})
    predict_inbox(project, values.model_copy(update={"predict": settled}), inbox=inbox)


def read_again_and_again(table: str, seen: object, stop: object) -> None:
    """Note how many rows each batch has, each time the table is read."""
    while not stop.is_set():  # type: ignore[attr-defined]
        if deltalake.DeltaTable.is_deltatable(table):
            rows = deltalake.DeltaTable(table).to_pyarrow_table(columns=["batch_id"])["batch_id"].to_pylist()
            for item in Counter(rows).items():
                seen.put(item)  # type: ignore[attr-defined]
        time.sleep(0.02)


class Inbox:
    """What was ever laid in the inbox: contents that can be read, and versions of files."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        self.contents: set[str] = set()
        self.versions: set[tuple[str, int, int]] = set()
        self.pictures = [np.round(image * 255 / 16).astype("uint8") for image in load_digits().images]
        root.mkdir()

    def fill(self, window: int) -> None:
        """New, repeated, changed, late and unreadable files."""
        earlier = sorted(self.root.rglob("*.png"))
        for number in range(self.random.randint(2, 5)):
            self._lay(f"{window:02}-{number}.png", self._picture())
        if earlier:
            twin, changed = self.random.choice(earlier), self.random.choice(earlier)
            self._lay(f"twins/{window:02}.png", twin.read_bytes())
            self._lay(str(changed.relative_to(self.root)), self._picture())
        self._lay(f"late/{window:02}.png", self._picture(), changed_at=window)
        self._lay(f"bad/{window:02}.png", b"no picture, window %d" % window)

    def _lay(self, name: str, data: bytes, changed_at: int | None = None) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        if changed_at is not None:
            os.utime(path, (changed_at, changed_at))
        if data[:1] == b"\x89":
            self.contents.add(sha256(data).hexdigest())
        found = path.stat()
        self.versions.add((name, found.st_size, found.st_mtime_ns // 1000))

    def _picture(self) -> bytes:
        file = self.root.parent / "picture.png"
        Image.fromarray(self.random.choice(self.pictures)).save(file)
        return file.read_bytes()


def differences(project: Project, inbox: Inbox) -> tuple[Counter[object], Counter[object]]:
    """What is lacking or there too often: contents, and versions of files."""
    answers = Counter[object](pl.read_delta(project.table("predictions"))["image_id"])
    rows = pl.read_delta(project.table("files")).select("path", "size", pl.col("mtime").dt.epoch("us")).rows()
    files, contents, versions = Counter[object](rows), Counter[object](inbox.contents), Counter[object](inbox.versions)
    return (answers - contents) + (contents - answers), (files - versions) + (versions - files)


@pytest.mark.timeout(900)
def test_in_fifty_windows_every_content_has_one_answer_and_every_version_one_row(
    champion_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", str(tmp_path / "tables"))
    # Each worker is forked from a process that has imported everything, so that fifty windows take a minute.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["calotype.predictions.scheduled", "calotype.learning.inference", __name__])
    inbox, dice = Inbox(tmp_path / "inbox", seed=5), random.Random(7)
    seen, stop = context.Queue(), context.Event()
    table = champion_project.table("predictions")
    reader = context.Process(target=read_again_and_again, args=(table, seen, stop), daemon=True)
    reader.start()

    def workers(count: int) -> list[BaseProcess]:
        started: list[BaseProcess] = [
            context.Process(target=batch, args=(str(champion_project.root), str(inbox.root))) for _ in range(count)
        ]
        for worker in started:
            worker.start()
        return started

    def window(number: int) -> int:
        """Two workers, of which some are killed, then one that is left in peace; how many were killed."""
        inbox.fill(number)
        pair, killed = workers(2), 0
        if dice.random() < 0.5:
            time.sleep(dice.uniform(0.05, 1.2))
            for worker in pair[: dice.randint(1, 2)]:
                killed += worker.is_alive()
                worker.kill()
        for worker in pair:
            worker.join(LONGEST_BATCH_S)
        (last,) = workers(1)
        last.join(LONGEST_BATCH_S)
        assert last.exitcode == 0
        return killed

    counts: dict[str, set[int]] = {}
    killed = 0
    try:
        for number in range(WINDOWS):
            killed += window(number)
            assert differences(champion_project, inbox) == (Counter(), Counter()), f"window {number}"
    finally:
        stop.set()
        while reader.is_alive() or not seen.empty():
            if not seen.empty():
                name, count = seen.get()
                counts.setdefault(name, set()).add(count)
    assert killed > 5
    assert len(counts) > WINDOWS // 2
    assert all(len(found) == 1 for found in counts.values())
