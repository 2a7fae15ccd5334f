"""One writer of a head wins, the others judge again; and what was written stays as it was."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import DeltaError

from calotype import delta
from calotype.errors import CalotypeError, DataError
from calotype.releases import ledger
from calotype.releases.ledger import Draft, View


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def promoted(version: int, reason: str = "better") -> Draft:
    return Draft(version=version, to_version=version, verdict="promote", reason=reason)


def test_a_place_without_a_table_has_no_entries_and_is_left_alone(place: str) -> None:
    view = ledger.read(place, "digits")
    assert (view.entries, view.head, view.title, view.ledger_id) == ((), None, None, None)
    assert not Path(place).exists()


def test_each_entry_names_the_champion_before_and_after(place: str) -> None:
    ledger.commit(place, "digits", "a", lambda _: promoted(1))
    ledger.commit(place, "digits", "b", lambda view: Draft(2, view.head, "hold", "not better", "0" * 64))
    ledger.commit(place, "digits", "c", lambda _: promoted(3))
    view = ledger.read(place, "digits")
    moves = [(e.sequence, e.version, e.from_version, e.to_version, e.verdict, e.who) for e in view.entries]
    assert moves == [(1, 1, None, 1, "promote", "a"), (2, 2, 1, 1, "hold", "b"), (3, 3, 1, 3, "promote", "c")]
    assert view.head == 3
    assert [entry.moves for entry in view.entries] == [True, False, True]
    assert view.title == view.entries[2]


def test_the_title_is_the_entry_that_moved_it_last(place: str) -> None:
    first = ledger.commit(place, "digits", "a", lambda _: promoted(1))
    ledger.commit(place, "digits", "a", lambda view: Draft(2, view.head, "reject", "worse"))
    assert ledger.read(place, "digits").title == first


def test_nothing_proposed_is_nothing_appended(place: str) -> None:
    assert ledger.commit(place, "digits", "a", lambda _: None) is None
    assert ledger.read(place, "digits").entries == ()


def test_whoever_lost_the_race_is_asked_again_with_the_new_head(place: str) -> None:
    seen: list[int | None] = []

    def propose(view: View) -> Draft:
        seen.append(view.head)
        if len(seen) == 1:
            ledger.commit(place, "digits", "other", lambda _: promoted(7))
        return promoted(8)

    entry = ledger.commit(place, "digits", "me", propose)
    assert seen == [None, 7]
    assert entry is not None
    assert (entry.sequence, entry.from_version, entry.to_version) == (2, 7, 8)


def test_entries_that_leave_the_head_make_nobody_judge_again(place: str) -> None:
    ledger.commit(place, "digits", "a", lambda _: promoted(1))
    seen: list[int | None] = []

    def propose(view: View) -> Draft:
        seen.append(view.head)
        ledger.commit(place, "garments", "other", lambda _: promoted(5))
        ledger.commit(place, "digits", "other", lambda other: Draft(2, other.head, "hold", "not better"))
        return promoted(8)

    entry = ledger.commit(place, "digits", "me", propose)
    assert seen == [1]
    assert entry is not None
    assert (entry.sequence, entry.from_version) == (4, 1)


def contend(place: str, version: int) -> int:
    """Promote a version over any lower one; return how often it was asked."""
    asked = 0

    def propose(view: View) -> Draft:
        nonlocal asked
        asked += 1
        wins = view.head is None or version > view.head
        return promoted(version) if wins else Draft(version, view.head, "hold", "not better")

    ledger.commit(place, "digits", f"contender {version}", propose)
    return asked


def test_processes_that_race_leave_every_attempt_and_the_best_on_top(place: str) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        asked = pool.starmap(contend, [(place, version) for version in (3, 9, 1, 8, 2, 7, 4, 6, 5)], chunksize=1)
    entries = ledger.read(place, "digits").entries
    assert sorted(entry.version or 0 for entry in entries) == list(range(1, 10))
    assert [entry.sequence for entry in entries] == list(range(1, 10))
    assert entries[-1].to_version == 9
    heads = [None, *(entry.to_version for entry in entries)]
    assert [entry.from_version for entry in entries] == heads[:-1]
    assert min(asked) >= 1


def test_nobody_can_delete_or_overwrite_rows(place: str) -> None:
    ledger.commit(place, "digits", "a", lambda _: promoted(1))
    with pytest.raises(DeltaError, match="append-only"):
        DeltaTable(place).delete()


def test_the_table_is_one_that_others_read(place: str) -> None:
    ledger.commit(place, "digits", "ann@desk", lambda _: promoted(1, "first"))
    row = pl.read_delta(place).row(0, named=True)
    assert (row["model"], row["to_version"], row["who"], row["reason"]) == ("digits", 1, "ann@desk", "first")
    assert row["at"].tzinfo is not None


def test_a_url_is_a_place_too(tmp_path: Path) -> None:
    place = (tmp_path / "ledger").as_uri()
    ledger.commit(place, "digits", "a", lambda _: promoted(1))
    assert ledger.read(place, "digits").head == 1


def test_a_newer_format_is_refused_by_name(place: str) -> None:
    ledger.commit(place, "digits", "a", lambda _: promoted(1))
    DeltaTable(place).alter.set_table_properties({delta.FORMAT_KEY: "3"}, raise_if_not_exists=False)
    with pytest.raises(DataError, match=r"ledger: format_version is 3; this calotype writes 2\. Upgrade it\."):
        ledger.read(place, "digits")


def test_another_table_or_other_files_are_refused(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "other"), pl.DataFrame({"a": [1]}).to_arrow())
    with pytest.raises(DataError, match=r"a table with the columns a; expected the ledger .* Set CALOTYPE_LEDGER"):
        ledger.read(str(tmp_path / "other"), "digits")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"files that are no Delta table; .* or set CALOTYPE_LEDGER\."):
        ledger.read(str(tmp_path / "files"), "digits")


def test_a_place_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CalotypeError, match=r"^[^\n]*CALOTYPE_LEDGER[^\n]*$"):
        ledger.commit(str(tmp_path / "file" / "ledger"), "digits", "a", lambda _: promoted(1))
    with pytest.raises(CalotypeError, match=r"^[^\n]*nowhere://x/y: the ledger of promotions cannot be read[^\n]*$"):
        ledger.read("nowhere://x/y", "digits")


def test_an_author_is_the_flow_run_or_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setenv("LOGNAME", "ann")
    assert ledger.author().startswith("ann@")
    monkeypatch.setenv("CALOTYPE_FLOW_RUN_NAME", "amber-otter")
    assert ledger.author() == "amber-otter"


def test_an_older_ledger_gets_the_new_columns_and_keeps_its_entries(place: str) -> None:
    schema = pa.schema([field for field in ledger.SCHEMA if field.name not in ledger.KIND.lacking["1"]])
    table = DeltaTable.create(
        place,
        schema=Schema.from_arrow(schema),
        partition_by=["model"],
        configuration={delta.FORMAT_KEY: "1", "delta.appendOnly": "true"},
        raise_if_key_not_exists=False,
    )
    first = {"sequence": 1, "model": "digits", "version": 1, "to_version": 1, "verdict": "promote"}
    row = first | {"evidence_digest": "", "reason": "better", "who": "ann", "at": datetime(2026, 1, 1, tzinfo=UTC)}
    transaction = CommitProperties(app_transactions=[Transaction(ledger.KIND.application, 1)])
    write_deltalake(table, pa.Table.from_pylist([row], schema), mode="append", commit_properties=transaction)
    assert ledger.read(place, "digits").head == 1
    ledger.commit(place, "digits", "a", lambda _: Draft(2, 2, "promote", "better", "", "d" * 64, "run"))
    old, new = ledger.read(place, "digits").entries
    assert (old.sequence, old.bundle_digest, old.run_id) == (1, None, None)
    assert (new.sequence, new.from_version, new.bundle_digest, new.run_id) == (2, 1, "d" * 64, "run")
