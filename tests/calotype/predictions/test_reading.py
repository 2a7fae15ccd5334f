"""Two tables as one: each file version with the answer that holds, however the tables are cut."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from calotype.errors import CalotypeError, DataError
from calotype.predictions import reading
from calotype.predictions.reading import joined, open_tables, shares
from calotype.predictions.tables import PREDICTIONS
from calotype.project import Project
from tests.production_tables import NIGHT, answer, digest_of, file, rejected, write

COLUMNS = ("label", "confidence", "probabilities", "embedding", "model_version", reading.ANSWER_BATCH)


def rows(project: Project, role: str = "champion") -> list[dict[str, Any]]:
    found = [row for batch in joined(open_tables(project), COLUMNS, role) for row in batch.to_pylist()]
    return sorted(found, key=lambda row: (row["path"], row["seen_at"]))


def test_the_same_content_at_two_paths_answers_at_both(project: Project) -> None:
    write(project, answers=[answer("a.png", "dog")], files=[file("a.png"), file("b.png", image_id=digest_of("a.png"))])
    assert [(row["path"], row["label"]) for row in rows(project)] == [("a.png", "dog"), ("b.png", "dog")]
    assert rows(project)[1]["probabilities"] == [("cat", pytest.approx(0.9)), ("dog", pytest.approx(0.1))]
    assert rows(project)[1]["embedding"] == [0.5, -1.25]


def test_the_latest_rescored_answer_holds_whichever_was_written_first(project: Project) -> None:
    later = {"predicted_at": NIGHT + timedelta(days=9), "model_version": 2, "batch_id": "rescore"}
    write(project, answers=[answer("a.png", "dog", **later)], files=[file("a.png")])
    write(project, answers=[answer("a.png", "cat")])
    (row,) = rows(project)
    assert (row["label"], row["model_version"], row["answered_in"], row["batch_id"]) == ("dog", 2, "rescore", "night-1")


def test_what_a_challenger_answered_is_no_champions_answer(project: Project) -> None:
    shadow = answer("a.png", "dog", role="shadow", model_version=2, predicted_at=NIGHT + timedelta(days=1))
    write(project, answers=[answer("a.png"), shadow], files=[file("a.png")])
    assert [row["label"] for row in rows(project)] == ["cat"]
    assert [row["label"] for row in rows(project, "shadow")] == ["dog"]


def test_a_rejected_file_has_no_answer_and_is_there_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.png" for number in range(40)]
    write(project, answers=map(answer, names), files=[*map(file, names), rejected("bad.png")])
    whole = rows(project)
    monkeypatch.setattr(reading, "SHARE_BYTES", 1000)
    assert len(shares(open_tables(project).predictions, PREDICTIONS, ["image_id", "probabilities"])) > 3
    assert rows(project) == whole
    assert len(whole) == 41
    assert [row["label"] for row in whole if row["status"] == "rejected"] == [None]


def test_files_without_any_answer_are_read(project: Project) -> None:
    write(project, files=[rejected("bad.png")])
    assert [(row["path"], row["label"]) for row in rows(project)] == [("bad.png", None)]


def test_a_foreign_table_is_refused_with_its_columns(project: Project) -> None:
    write_deltalake(project.table("files"), pl.DataFrame({"x": [1]}).to_arrow())
    with pytest.raises(
        DataError, match=r"data/predictions/files: found a table with the columns x; expected the table"
    ):
        open_tables(project)


def test_other_files_at_the_place_are_refused(project: Project) -> None:
    place = project.root / "data" / "predictions" / "predictions"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="found files that are no Delta table; expected the table of predictions"):
        open_tables(project)


def test_an_address_that_cannot_be_reached_is_one_line(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", "nowhere://tables")
    with pytest.raises(
        CalotypeError, match=r"cannot be read or written \(.*\)\. Correct CALOTYPE_PREDICT_OUTPUT\."
    ) as caught:
        open_tables(project)
    assert "\n" not in str(caught.value)


def test_a_row_group_at_a_time_is_read(project: Project) -> None:
    write(project, answers=map(answer, (f"{number}.png" for number in range(10))))
    table = DeltaTable(project.table("predictions"))
    assert sum(batch.num_rows for batch in reading.batches(table, PREDICTIONS, ["image_id"])) == 10
    assert list(reading.batches(None, PREDICTIONS, ["image_id"])) == []
