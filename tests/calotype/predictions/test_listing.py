"""Rows that a person asks for: each condition alone, and the order."""

from __future__ import annotations

from datetime import timedelta

import pytest

from calotype.errors import UsageError
from calotype.predictions.listing import Wanted, find
from calotype.predictions.reading import open_tables
from calotype.project import Project
from tests.production_tables import NIGHT, answer, digest_of, file, rejected, write


@pytest.fixture
def filled(project: Project) -> Project:
    later = NIGHT + timedelta(days=1)
    answers = [
        answer("line-1/a.png", "cat", confidence=0.6),
        answer("line-1/b[1].png", "dog", confidence=0.4, abstained=True),
        answer("line-2/c.JPG", "dog", confidence=0.99, batch_id="night-2"),
        answer("line-2/c.JPG", "cat", role="shadow", model_version=2, batch_id="night-2"),
    ]
    files = [
        file("line-1/a.png"),
        file("line-1/b[1].png"),
        file("line-2/c.JPG", batch_id="night-2", seen_at=later),
        rejected("line-2/torn.jpg", batch_id="night-2", seen_at=later),
    ]
    write(project, answers=answers, files=files)
    return project


@pytest.mark.parametrize(
    ("wanted", "paths"),
    [
        (Wanted(), ["line-2/c.JPG", "line-2/torn.jpg", "line-1/a.png", "line-1/b[1].png"]),
        (Wanted(path="line-1/*"), ["line-1/a.png", "line-1/b[1].png"]),
        (Wanted(path="*/b[1].p?g"), ["line-1/b[1].png"]),
        (Wanted(path="b[1].png"), []),
        (Wanted(image_id=digest_of("line-1/a.png")[:7].upper()), ["line-1/a.png"]),
        (Wanted(label="dog"), ["line-2/c.JPG", "line-1/b[1].png"]),
        (Wanted(below=0.9), ["line-1/b[1].png", "line-1/a.png"]),
        (Wanted(abstained=True), ["line-1/b[1].png"]),
        (Wanted(rejected=True), ["line-2/torn.jpg"]),
        (Wanted(batch="night-2"), ["line-2/c.JPG", "line-2/torn.jpg"]),
        (Wanted(batch="night-2", label="dog"), ["line-2/c.JPG"]),
        (Wanted(role="shadow"), ["line-2/c.JPG"]),
    ],
)
def test_each_condition_chooses(filled: Project, wanted: Wanted, paths: list[str]) -> None:
    rows, count = find(open_tables(filled), wanted)
    assert [row["path"] for row in rows] == paths
    assert count == len(paths)


def test_a_file_that_was_mended_since_is_rejected_no_more(filled: Project) -> None:
    mended = NIGHT + timedelta(days=2)
    torn_again = rejected("line-1/a.png", seen_at=mended)
    write(filled, files=[file("line-2/torn.jpg", seen_at=mended), torn_again], answers=[answer("line-2/torn.jpg")])
    worse = rejected("line-1/a.png", "empty: 0 bytes", seen_at=mended + timedelta(days=1))
    write(filled, files=[worse])
    rows, count = find(open_tables(filled), Wanted(rejected=True))
    assert [(row["path"], row["reason"]) for row in rows] == [("line-1/a.png", "empty: 0 bytes")]
    assert count == 1


def test_the_limit_keeps_the_least_confident_and_counts_all(filled: Project) -> None:
    rows, count = find(open_tables(filled), Wanted(below=1.0, limit=2))
    assert [row["confidence"] for row in rows] == [pytest.approx(0.4), pytest.approx(0.6)]
    assert count == 3


def test_an_unknown_role_is_refused(filled: Project) -> None:
    with pytest.raises(UsageError, match="--role: found 'challenger'; expected champion or shadow"):
        find(open_tables(filled), Wanted(role="challenger"))
