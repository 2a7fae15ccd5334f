"""The table takes each image once, whoever else writes at the same moment."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake import Schema as DeltaSchema

from calotype import delta
from calotype.errors import CalotypeError, DataError
from calotype.predictions import prediction_table
from calotype.predictions.known import Key
from calotype.predictions.prediction_table import TABLE_SCHEMA, append, known_keys, open_table

APPEND = """
import sys
from pathlib import Path
from calotype.predictions import prediction_table
from calotype.predictions.known import Key
print(prediction_table.append(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def spool(path: Path, names: list[str], *, batch: str = "b") -> Path:
    rows = [
        {
            "path": name,
            "image_id": None if name.startswith("bad") else f"id-{name}",
            "status": "rejected" if name.startswith("bad") else "predicted",
            "probabilities": [("0", 0.25), ("1", 0.75)],
            "model_name": "digits",
            "model_version": 1,
            "run_id": "r",
            "batch_id": batch,
            "predicted_at": datetime(2026, 1, 1, tzinfo=UTC),
        }
        for name in names
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLE_SCHEMA), path)
    return path


def keys_of(place: Path, *keys: Key) -> bool:
    """Whether the table's keys are these and no others."""
    known = known_keys(open_table(place))
    return len(known) == len(keys) and all(key in known for key in keys) and ("absent", None) not in known


def test_the_first_append_makes_a_table_that_polars_reads(tmp_path: Path) -> None:
    assert append(tmp_path / "data" / "predictions", spool(tmp_path / "s", ["a", "b", "bad"])) == 3
    frame = pl.read_delta(str(tmp_path / "data" / "predictions"))
    assert frame["path"].to_list() == ["a", "b", "bad"]
    assert frame.columns == TABLE_SCHEMA.names


def test_rows_that_are_there_are_not_appended_again(tmp_path: Path) -> None:
    place = tmp_path / "predictions"
    append(place, spool(tmp_path / "s", ["a", "bad"]))
    version = DeltaTable(place).version()
    assert append(place, spool(tmp_path / "s", ["a", "bad"])) == 0
    assert DeltaTable(place).version() == version
    assert append(place, spool(tmp_path / "s", ["bad", "b", "a"])) == 1
    assert keys_of(place, ("a", "id-a"), ("b", "id-b"), ("bad", None))


@pytest.mark.slow
def test_processes_that_append_overlapping_batches_at_once_give_each_image_one_row(tmp_path: Path) -> None:
    place = tmp_path / "predictions"
    batches = [[f"{number:03}" for number in range(start, start + 40)] for start in (0, 10, 20, 30)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, place, spool(tmp_path / str(index), names, batch=str(index))],
            stdout=subprocess.PIPE,
            text=True,
        )
        for index, names in enumerate(batches)
    ]
    appended = [int(racer.communicate(timeout=120)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    paths = pl.read_delta(str(place))["path"].to_list()
    assert sorted(paths) == [f"{number:03}" for number in range(70)]
    assert sum(appended) == 70


def test_of_two_writers_from_one_snapshot_the_second_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "predictions"
    append(place, spool(tmp_path / "s", ["a"]))
    one, other = open_table(place), open_table(place)
    assert one is not None
    assert other is not None
    rows = pq.read_table(spool(tmp_path / "s", ["b"])).cast(TABLE_SCHEMA)
    assert prediction_table._commit(one, iter(rows.to_batches()))
    assert not prediction_table._commit(other, iter(rows.to_batches()))
    assert keys_of(place, ("a", "id-a"), ("b", "id-b"))


def test_a_writer_that_never_wins_gives_up_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_table, "ATTEMPTS", 2)
    monkeypatch.setattr(prediction_table, "_commit", lambda *_: False)
    with pytest.raises(CalotypeError, match=r"2 attempts to append met other writers.*Nothing was appended"):
        append(tmp_path / "predictions", spool(tmp_path / "s", ["a"]))


def old_table(place: Path, names: list[str], spooled: Path, *, version: str = "1") -> None:
    """A table as an older version wrote it, without the columns that were added since."""
    lacking = prediction_table.KIND.lacking[version]
    schema = pa.schema([field for field in TABLE_SCHEMA if field.name not in lacking])
    table = DeltaTable.create(
        place,
        schema=DeltaSchema.from_arrow(schema),
        configuration={delta.FORMAT_KEY: version},
        raise_if_key_not_exists=False,
    )
    rows = pq.read_table(spool(spooled, names)).drop_columns(list(lacking)).cast(schema)
    transaction = CommitProperties(app_transactions=[Transaction(prediction_table.APPLICATION, 1)])
    write_deltalake(table, rows, mode="append", commit_properties=transaction)


@pytest.mark.parametrize("version", ["1", "2"])
def test_an_older_table_gets_the_new_columns_and_keeps_its_rows(tmp_path: Path, version: str) -> None:
    place = tmp_path / "predictions"
    old_table(place, ["a", "bad"], tmp_path / "old", version=version)
    assert keys_of(place, ("a", "id-a"), ("bad", None))
    answered = pq.read_table(spool(tmp_path / "s", ["a", "b"])).to_pylist()
    rows = [row | {"abstained": True, "engine": "bf16"} for row in answered]
    pq.write_table(pa.Table.from_pylist(rows, schema=TABLE_SCHEMA), tmp_path / "s")
    assert append(place, tmp_path / "s") == 1
    frame = pl.read_delta(str(place)).sort("path")
    assert frame["path"].to_list() == ["a", "b", "bad"]
    assert frame["abstained"].to_list() == [None, True, None]
    assert frame["engine"].to_list() == [None, "bf16", None]
    assert DeltaTable(place).metadata().configuration[delta.FORMAT_KEY] == "3"
    assert append(place, spool(tmp_path / "s", ["c"])) == 1


def test_a_path_that_a_batch_holds_twice_gets_one_row(tmp_path: Path) -> None:
    assert append(tmp_path / "predictions", spool(tmp_path / "s", ["a", "b", "a"])) == 2


def test_an_upgrade_cut_off_after_the_column_is_finished_by_the_next_writer(tmp_path: Path) -> None:
    place = tmp_path / "predictions"
    old_table(place, ["a"], tmp_path / "old")
    DeltaTable(place).alter.add_columns(
        [field for field in DeltaSchema.from_arrow(TABLE_SCHEMA).fields if field.name == "abstained"]
    )
    assert append(place, spool(tmp_path / "s", ["a", "b"])) == 1
    assert DeltaTable(place).metadata().configuration[delta.FORMAT_KEY] == "3"


def test_of_two_writers_that_upgrade_at_once_both_go_on(tmp_path: Path) -> None:
    place = tmp_path / "predictions"
    old_table(place, ["a"], tmp_path / "old")
    one, other = open_table(place), open_table(place)
    assert one is not None
    assert other is not None
    delta.upgrade(one, prediction_table.KIND)
    delta.upgrade(other, prediction_table.KIND)
    assert append(place, spool(tmp_path / "s", ["b"])) == 1
    assert [field.name for field in DeltaTable(place).schema().fields].count("abstained") == 1


def test_a_foreign_table_is_refused_by_its_columns(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "other", pa.table({"price": [1.0]}))
    with pytest.raises(DataError, match=r"a table with the columns price; expected the table of predictions"):
        append(tmp_path / "other", spool(tmp_path / "s", ["a"]))


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found files that are no Delta table"):
        append(tmp_path / "photos", spool(tmp_path / "s", ["a"]))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.png"]


def test_a_table_of_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(prediction_table, "KIND", replace(prediction_table.KIND, format_version=4))
        append(tmp_path / "predictions", spool(tmp_path / "s", ["a"]))
    with pytest.raises(DataError, match=r"format_version is 4; this calotype writes 3\. Upgrade it\."):
        open_table(tmp_path / "predictions")
