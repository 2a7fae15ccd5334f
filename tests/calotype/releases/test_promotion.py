"""Who is judged against whom, what is written down, what a second attempt finds: on a real store, without models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calotype.cli import app
from calotype.errors import CalotypeError, UsageError
from calotype.params import Params
from calotype.project import Project
from calotype.releases import ledger, projection, promotion, versions
from calotype.releases.ledger import Draft, Entry, View
from calotype.releases.promotion import Ruling
from calotype.releases.versions import CHALLENGER, CHAMPION, Registry

Make = Callable[[str], int]
BETTER = Ruling("promote", ("better",), {"accuracy": 0.9})
NOT_BETTER = Ruling("hold", ("not better",), {"accuracy": 0.8})


@pytest.fixture
def registry(registry_project: Project) -> Iterator[Registry]:
    with versions.connected(registry_project) as connected:
        yield connected


def settle(registry: Registry, name: str, number: int, ruling: Ruling) -> promotion.Promotion:
    return promotion.settle(registry, name, number, lambda _: ruling, who="ann")


def entries(registry: Registry, name: str) -> tuple[Entry, ...]:
    return ledger.read(registry.project.ledger, name).entries


def test_a_promoted_challenger_is_champion_and_no_challenger(
    registry: Registry, named: Params, make_version: Make
) -> None:
    number = make_version(named.name)
    registry.set_alias(named.name, CHALLENGER, number)
    done = settle(registry, named.name, number, BETTER)
    assert done.promoted
    assert registry.alias(named.name, CHAMPION) == number
    assert registry.alias(named.name, CHALLENGER) is None
    assert done.entry == entries(registry, named.name)[0]
    assert done.summary().splitlines()[0] == "promote: better"
    assert done.summary().splitlines()[-1].startswith("  ledger entry ")


def test_a_held_and_a_rejected_challenger_are_entries_too(
    registry: Registry, named: Params, make_version: Make
) -> None:
    for _ in range(2):
        make_version(named.name)
    registry.set_alias(named.name, CHALLENGER, 2)
    settle(registry, named.name, 1, BETTER)
    assert not settle(registry, named.name, 2, NOT_BETTER).promoted
    settle(registry, named.name, 2, Ruling("reject", ("worse",), {"accuracy": 0.1}))
    found = [(e.verdict, e.version, e.from_version, e.to_version) for e in entries(registry, named.name)]
    assert found == [("promote", 1, None, 1), ("hold", 2, 1, 1), ("reject", 2, 1, 1)]
    assert (registry.alias(named.name, CHAMPION), registry.alias(named.name, CHALLENGER)) == (1, 2)


def test_the_evidence_is_in_the_run_and_its_digest_in_the_entry(
    registry: Registry, named: Params, make_version: Make, tmp_path: Path
) -> None:
    number = make_version(named.name)
    entry = settle(registry, named.name, number, BETTER).entry
    assert entry is not None
    version = versions.require(registry, named.name, number)
    path = f"gate/decision-{entry.evidence_digest[:12]}.json"
    kept = Path(registry.client.download_artifacts(str(version.run_id), path, str(tmp_path))).read_bytes()
    assert hashlib.sha256(kept).hexdigest() == entry.evidence_digest
    assert json.loads(kept) == {"accuracy": 0.9}
    tags = {key: value for key, value in version.tags.items() if key.startswith("calotype.gate.")}
    assert tags == {
        "calotype.gate.verdict": "promote",
        "calotype.gate.reason": "better",
        "calotype.gate.evidence_digest": entry.evidence_digest,
        "calotype.gate.ledger_sequence": str(entry.sequence),
    }


def test_whoever_loses_a_race_is_judged_again_against_the_new_champion(
    registry: Registry, named: Params, make_version: Make
) -> None:
    for _ in range(2):
        make_version(named.name)
    seen: list[int | None] = []

    def judge(head: int | None) -> Ruling:
        seen.append(head)
        if head is None:
            settle(registry, named.name, 2, BETTER)
            return BETTER
        return NOT_BETTER

    done = promotion.settle(registry, named.name, 1, judge, who="late")
    assert seen == [None, 2]
    assert done.verdict == "hold"
    assert registry.alias(named.name, CHAMPION) == 2
    assert [entry.version for entry in entries(registry, named.name)] == [2, 1]


def test_the_same_verdict_on_the_same_evidence_is_written_once(
    registry: Registry, named: Params, make_version: Make
) -> None:
    for _ in range(3):
        make_version(named.name)
    settle(registry, named.name, 1, BETTER)
    first = settle(registry, named.name, 2, NOT_BETTER)
    again = settle(registry, named.name, 2, NOT_BETTER)
    assert again.entry == first.entry
    assert len(entries(registry, named.name)) == 2
    settle(registry, named.name, 2, Ruling("hold", ("not better",), {"accuracy": 0.81}))
    settle(registry, named.name, 3, BETTER)
    settle(registry, named.name, 2, NOT_BETTER)
    assert [entry.from_version for entry in entries(registry, named.name)] == [None, 1, 1, 1, 3]


def test_a_task_tried_again_after_the_entry_finds_the_champion_and_finishes_what_was_left(
    registry: Registry, named: Params, make_version: Make
) -> None:
    number = make_version(named.name)
    registry.set_alias(named.name, CHALLENGER, number)
    ledger.commit(
        registry.project.ledger, named.name, "ann", lambda _: Draft(number, number, "promote", "better", "e" * 64)
    )
    done = promotion.promote(registry.project, named)
    assert done.summary() == f"nothing to promote: {named.name} version 1 is the champion already"
    assert registry.alias(named.name, CHAMPION) == number
    assert promotion.promote(registry.project, named, number).entry is None
    assert registry.alias(named.name, CHALLENGER) is None
    assert versions.require(registry, named.name, number).tags["calotype.gate.verdict"] == "promote"
    assert len(entries(registry, named.name)) == 1


def test_without_a_challenger_there_is_nothing_to_promote(registry: Registry, named: Params) -> None:
    assert promotion.promote(registry.project, named).summary() == (
        f"nothing to promote: no version of '{named.name}' is the challenger. Run `calotype register`."
    )
    assert entries(registry, named.name) == ()


def test_nothing_to_promote_is_no_failure_of_the_command(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.project.dvc_yaml.touch()
    monkeypatch.chdir(registry.project.root)
    done = CliRunner().invoke(app, ["promote"])
    assert done.exit_code == 0
    assert done.output == "nothing to promote: no version of 'digits' is the challenger. Run `calotype register`.\n"


def test_promoting_the_champion_again_says_in_one_line_that_there_is_nothing_to_do(
    registry: Registry, named: Params, make_version: Make
) -> None:
    number = make_version(named.name)
    registry.set_alias(named.name, CHALLENGER, number)
    settle(registry, named.name, number, BETTER)
    already = f"nothing to promote: {named.name} version 1 is the champion already"
    assert promotion.promote(registry.project, named).summary() == f"{already}, and no other is the challenger"
    assert promotion.promote(registry.project, named, number).summary() == already
    assert len(entries(registry, named.name)) == 1


def test_an_unknown_version_is_refused_with_those_that_there_are(
    registry: Registry, named: Params, make_version: Make
) -> None:
    with pytest.raises(UsageError, match=r"has no version 7; there is no version yet\."):
        promotion.promote(registry.project, named, 7)
    make_version(named.name)
    make_version(named.name)
    with pytest.raises(UsageError, match=r"has no version 7; there are the versions 1, 2\. Name one of them"):
        promotion.promote(registry.project, named, 7)
    assert entries(registry, named.name) == ()


def test_a_deleted_run_is_refused_before_anything_is_scored(
    registry: Registry, named: Params, make_version: Make
) -> None:
    number = make_version(named.name)
    run_id = str(versions.require(registry, named.name, number).run_id)
    registry.client.delete_run(run_id)
    with pytest.raises(CalotypeError, match=rf"its MLflow run {run_id} is deleted\. Run `mlflow runs restore"):
        promotion.promote(registry.project, named, number)
    assert entries(registry, named.name) == ()


def test_a_registry_that_cannot_be_reached_is_one_line_and_nothing_is_written(
    registry: Registry, named: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for act in (promotion.promote, promotion.rollback):
        with pytest.raises(CalotypeError, match=r"^mlflow: no answer from http://127\.0\.0\.1:9[^\n]*$"):
            act(registry.project, named)
    assert entries(registry, named.name) == ()


@pytest.mark.parametrize("reason", ["", "  "])
def test_force_without_a_reason_is_refused(registry: Registry, named: Params, reason: str) -> None:
    with pytest.raises(UsageError, match=r"found no reason; expected one\. Add `--reason"):
        promotion.promote(registry.project, named, 1, force=True, reason=reason)


def test_without_a_champion_there_is_nothing_to_roll_back(registry: Registry, named: Params) -> None:
    with pytest.raises(UsageError, match=r"has no champion to roll back from\. Run `calotype promote`\."):
        promotion.rollback(registry.project, named)


def test_the_first_champion_has_none_before_it(registry: Registry, named: Params, make_version: Make) -> None:
    settle(registry, named.name, make_version(named.name), BETTER)
    with pytest.raises(UsageError, match=r"no champion before version 1 is in the ledger\. Name a version by `--to`\."):
        promotion.rollback(registry.project, named)
    done = promotion.rollback(registry.project, named, 1)
    assert done.summary() == f"nothing to roll back: {named.name} version 1 is the champion already"
    assert len(entries(registry, named.name)) == 1


def test_a_version_that_never_was_champion_is_no_way_back(
    registry: Registry, named: Params, make_version: Make
) -> None:
    for _ in range(4):
        make_version(named.name)
    settle(registry, named.name, 1, BETTER)
    settle(registry, named.name, 2, BETTER)
    settle(registry, named.name, 3, NOT_BETTER)
    with pytest.raises(UsageError, match=r"version 3 was never the champion; expected one that was: 1, 2\. Run `calo"):
        promotion.rollback(registry.project, named, 3)
    assert registry.alias(named.name, CHAMPION) == 2


def test_a_reason_without_force_is_refused(registry: Registry, named: Params) -> None:
    with pytest.raises(UsageError, match=r"--reason: found no --force"):
        promotion.promote(registry.project, named, 1, reason="because")


def view(*moves: tuple[ledger.Verdict, int]) -> View:
    """Entries that move the title to these versions, in this order."""
    heads = [None, *(version for _, version in moves)]
    rows = (
        Entry(number, "m", version, heads[number - 1], version, verdict, "", "", "ann", datetime.now(UTC))
        for number, (verdict, version) in enumerate(moves, 1)
    )
    return View("m", tuple(rows))


def test_rolling_back_twice_goes_two_champions_back_and_not_to_and_fro() -> None:
    climb: list[tuple[ledger.Verdict, int]] = [("promote", 1), ("promote", 2), ("forced", 5)]
    assert promotion._before(view(*climb)) == 2
    assert promotion._before(view(*climb, ("rollback", 2))) == 1
    assert promotion._before(view(*climb, ("rollback", 2), ("promote", 6))) == 2
    assert promotion._before(view(*climb, ("rollback", 4))) == 5


def test_a_champion_by_hand_nobody_recorded_stops_a_promotion_and_not_a_forced_one(
    registry: Registry, named: Params, make_version: Make
) -> None:
    make_version(named.name)
    make_version(named.name)
    registry.set_alias(named.name, CHAMPION, 1)
    registry.set_alias(named.name, CHALLENGER, 2)
    for act in (promotion.promote, promotion.rollback):
        with pytest.raises(UsageError, match=r"has the alias champion and no promotion in the ledger"):
            act(registry.project, named)
    projection.reconcile(registry, named, prefix="test")
    assert entries(registry, named.name) == ()
