"""A table takes each row once, whoever else writes at the same moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from calotype import exactly_once
from calotype.delta import Kind, batches, open_checked
from calotype.errors import CalotypeError, DataError
from calotype.exactly_once import Appended, Keyed, append, read

MOMENT = pa.timestamp("us", tz="UTC")
KIND = Kind(
    "the table of sightings",
    "CALOTYPE_SIGHTINGS",
    "calotype.sightings",
    pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("mtime", MOMENT),
            pa.field("note", pa.string()),
            pa.field("at", MOMENT, nullable=False),
        ]
    ),
    format_version=2,
    lacking={},
)
SIGHTINGS = Keyed(KIND, "Sightings", ("path", "mtime"), "at")

APPEND = """
import sys
from tests.calotype.test_exactly_once import SIGHTINGS, rows_of
from calotype.exactly_once import append
print(append(sys.argv[1], SIGHTINGS, rows_of(sys.argv[2:])).appended)
"""


def rows_of(names: list[str], note: str = "", mtime: datetime | None = None) -> Callable[[], list[pa.RecordBatch]]:
    """Rows in batches of two."""
    schema = SIGHTINGS.spooled
    rows = pa.Table.from_pylist([{"path": name, "mtime": mtime, "note": note} for name in names], schema=schema)
    return lambda: rows.to_batches(max_chunksize=2)


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "data" / "sightings")


def test_the_first_append_makes_a_table_that_polars_reads(place: str) -> None:
    assert append(place, SIGHTINGS, rows_of(["a", "b", "c"])) == Appended(3, 3)
    frame = pl.read_delta(place)
    assert sorted(frame["path"]) == ["a", "b", "c"]
    assert frame.columns == KIND.schema.names


def test_rows_that_are_there_are_not_appended_again(place: str) -> None:
    append(place, SIGHTINGS, rows_of(["a", "b"]))
    version = DeltaTable(place).version()
    assert append(place, SIGHTINGS, rows_of(["a", "b"])) == Appended(2, 0)
    assert append(place, SIGHTINGS, rows_of([])) == Appended(0, 0)
    assert DeltaTable(place).version() == version
    assert append(place, SIGHTINGS, rows_of(["b", "c", "a"])) == Appended(3, 1)
    assert sorted(pl.read_delta(place)["path"]) == ["a", "b", "c"]


def test_every_column_of_the_key_counts_and_none_else(place: str) -> None:
    moment = datetime(2026, 1, 1, 12, 0, 0, 1, tzinfo=UTC)
    assert append(place, SIGHTINGS, rows_of(["a"])).appended == 1
    assert append(place, SIGHTINGS, rows_of(["a"], mtime=moment)).appended == 1
    assert append(place, SIGHTINGS, rows_of(["a"], "other", moment)).appended == 0
    assert append(place, SIGHTINGS, rows_of(["a"], mtime=moment + timedelta(microseconds=1))).appended == 1
    keys = read(place, SIGHTINGS).keys
    assert ("a", None) in keys
    assert ("a", int(moment.timestamp() * 1e6)) in keys
    assert ("b", None) not in keys
    assert len(keys) == 3


def test_of_rows_with_equal_keys_the_first_stays(place: str) -> None:
    both = [*rows_of(["a", "b"], "first")(), *rows_of(["b", "a", "c"], "second")()]
    assert append(place, SIGHTINGS, lambda: both) == Appended(3, 3)
    frame = pl.read_delta(place).sort("path")
    assert frame["note"].to_list() == ["first", "first", "second"]


def test_moments_rise_from_commit_to_commit_though_a_clock_goes_back(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # noqa: ARG003
            return datetime(2020, 1, 1, tzinfo=UTC)

    append(place, SIGHTINGS, rows_of(["a", "b"]))
    monkeypatch.setattr(exactly_once, "datetime", Late)
    append(place, SIGHTINGS, rows_of(["c"]))
    at = dict(pl.read_delta(place).select("path", "at").iter_rows())
    assert at["a"] == at["b"]
    assert at["c"] == at["a"] + timedelta(microseconds=1)
    assert read(place, SIGHTINGS).last == at["c"]


@pytest.mark.slow
def test_processes_that_append_overlapping_rows_at_once_give_each_one_row(place: str) -> None:
    overlapping = [[f"{number:03}" for number in range(start, start + 40)] for start in (0, 10, 20, 30)]
    racers = [
        subprocess.Popen([sys.executable, "-c", APPEND, place, *names], stdout=subprocess.PIPE, text=True)
        for names in overlapping
    ]
    appended = [int(racer.communicate(timeout=120)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4
    frame = pl.read_delta(place)
    assert sorted(frame["path"]) == [f"{number:03}" for number in range(70)]
    assert sum(appended) == 70
    assert frame["at"].n_unique() == sum(1 for one in appended if one)


def test_of_two_writers_from_one_snapshot_the_second_is_refused(place: str) -> None:
    append(place, SIGHTINGS, rows_of(["a"]))
    one, other = open_checked(place, KIND), open_checked(place, KIND)
    assert one is not None
    assert other is not None
    now = datetime.now(UTC)
    assert exactly_once._commit(one, SIGHTINGS, iter(rows_of(["b"])()), now)
    assert not exactly_once._commit(other, SIGHTINGS, iter(rows_of(["b"])()), now)
    assert sorted(pl.read_delta(place)["path"]) == ["a", "b"]


def test_the_loser_of_a_race_subtracts_and_tries_again(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    append(place, SIGHTINGS, rows_of(["z"]))
    commit = exactly_once._commit

    def beaten(*arguments: object) -> bool:
        monkeypatch.setattr(exactly_once, "_commit", commit)
        append(place, SIGHTINGS, rows_of(["a"], "winner"))
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(exactly_once, "_commit", beaten)
    assert append(place, SIGHTINGS, rows_of(["a", "b"], "loser")) == Appended(2, 1)
    assert dict(pl.read_delta(place).select("path", "note").iter_rows()) == {"z": "", "a": "winner", "b": "loser"}


def test_a_writer_that_never_wins_gives_up_with_a_reason(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactly_once, "ATTEMPTS", 2)
    monkeypatch.setattr(exactly_once, "_commit", lambda *_: False)
    with pytest.raises(CalotypeError, match=r"2 attempts to append met other writers.*Nothing was appended"):
        append(place, SIGHTINGS, rows_of(["a"]))


def test_rows_are_read_in_batches_of_some_columns_and_by_a_condition(place: str) -> None:
    import pyarrow.compute as pc

    append(place, SIGHTINGS, rows_of(["a", "b"], "x"))
    append(place, SIGHTINGS, rows_of(["c"], "y"))
    table = open_checked(place, KIND)
    assert table is not None
    found = [row for batch in batches(table, KIND, ["path"], pc.field("note") == "x") for row in batch.to_pylist()]
    assert sorted(row["path"] for row in found) == ["a", "b"]


def test_a_foreign_table_is_refused_by_its_columns(place: str) -> None:
    write_deltalake(place, pa.table({"price": [1.0]}))
    with pytest.raises(DataError, match=r"a table with the columns price; expected the table of sightings"):
        append(place, SIGHTINGS, rows_of(["a"]))


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found files that are no Delta table"):
        append(str(tmp_path / "photos"), SIGHTINGS, rows_of(["a"]))
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["a.png"]


def test_a_table_of_a_newer_format_is_refused(place: str) -> None:
    append(place, replace(SIGHTINGS, kind=replace(KIND, format_version=3)), rows_of(["a"]))
    with pytest.raises(DataError, match=r"format_version is 3; this calotype writes 2\. Upgrade it\."):
        open_checked(place, KIND)
