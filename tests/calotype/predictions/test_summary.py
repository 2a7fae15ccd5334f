"""Counts that a person can add up, in memory that does not grow."""

from __future__ import annotations

from datetime import timedelta

import pytest

from calotype import delta
from calotype.predictions import reading, summary
from calotype.predictions.reading import open_tables
from calotype.predictions.summary import summarize
from calotype.project import Project
from tests.production_tables import NIGHT, answer, file, rejected, write


@pytest.fixture
def filled(project: Project) -> Project:
    """Four contents, one of them rescored, one shadow row, two files that cannot be read."""
    later = NIGHT + timedelta(days=7)
    answers = [
        answer("a.png", "cat", confidence=0.5, abstained=True),
        answer("b.png", "dog"),
        answer("c.png", "cat"),
        answer("d.png", "cat"),
        answer("b.png", "cat", confidence=1.0, model_version=2, predicted_at=later, batch_id="rescore"),
        answer("a.png", "dog", role="shadow", model_version=2, predicted_at=later),
    ]
    bad = [rejected("x.png", "empty: 0 bytes"), rejected("y.png", batch_id="night-2", seen_at=later)]
    write(project, answers=answers, files=[*map(file, ["a.png", "b.png", "c.png", "d.png"]), *bad])
    return project


def test_each_content_counts_once_by_its_latest_answer(filled: Project) -> None:
    found = summarize(open_tables(filled))
    assert (found.contents, found.answers, found.abstained) == (4, 6, 1)
    (row,) = found.classes
    assert (row.label, row.contents, row.share, row.abstained) == ("cat", 4, 1.0, 1)
    assert row.mean_confidence == pytest.approx((0.5 + 1.0 + 0.9 + 0.9) / 4)
    assert found.mean_confidence == pytest.approx(row.mean_confidence)


def test_versions_and_roles_are_told_apart(filled: Project) -> None:
    models = summarize(open_tables(filled)).models
    assert [(one.version, one.role, one.answers) for one in models] == [
        (1, "champion", 4),
        (2, "champion", 1),
        (2, "shadow", 1),
    ]
    assert models[0].first == models[0].last == NIGHT


def test_batches_count_rejected_files_and_answers_of_new_champions_too(filled: Project) -> None:
    found = summarize(open_tables(filled))
    assert found.files == 6
    assert found.rejected == {"empty": 1, "corrupt": 1}
    assert [(one.batch_id, one.files, one.rejected, one.answers) for one in found.batches] == [
        ("rescore", 0, 0, 1),
        ("night-2", 1, 1, 0),
        ("night-1", 5, 1, 5),
    ]


def test_shares_change_nothing(filled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summarize(open_tables(filled))
    monkeypatch.setattr(reading, "SHARE_BYTES", 300)
    parts = summarize(open_tables(filled))
    assert parts.classes == whole.classes
    assert parts.models[1:] == whole.models[1:]


def test_of_many_batches_the_last_ten_are_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "MANY_BATCHES", 12)
    monkeypatch.setattr(delta, "ROWS_AT_ONCE", 5)
    nights = [7, 3, 39, 1, 20, 38, *range(40), 39]
    files = [
        file(f"{place}.png", batch_id=f"night-{night:02}", seen_at=NIGHT + timedelta(days=night))
        for place, night in enumerate(nights)
    ]
    write(project, files=files)
    found = summarize(open_tables(project)).batches
    assert [one.batch_id for one in found] == [f"night-{night}" for night in range(39, 29, -1)]
    assert [one.files for one in found] == [3, 2, *[1] * 8]


def test_nothing_is_counted_where_nothing_is(project: Project) -> None:
    tables = open_tables(project)
    assert tables.is_empty
    found = summarize(tables)
    assert (found.contents, found.files, found.mean_confidence, found.batches) == (0, 0, None, ())
