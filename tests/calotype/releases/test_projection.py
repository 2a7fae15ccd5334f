"""The alias follows the ledger; what a hand did to it is told from what a cut-off promotion left undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from calotype.errors import CalotypeError, UsageError
from calotype.params import Params
from calotype.project import Project
from calotype.releases import ledger, projection, promotion, versions
from calotype.releases import registry as releases
from calotype.releases.ledger import Draft
from calotype.releases.projection import LEDGER, SEQUENCE, Standing
from calotype.releases.versions import CHAMPION, Registry
from tests.conftest import run

Make = Callable[[str], int]


@pytest.fixture
def registry(registry_project: Project) -> Iterator[Registry]:
    with versions.connected(registry_project) as connected:
        yield connected


@pytest.fixture
def adopting(named: Params) -> Params:
    return named.model_copy(update={"promote": named.promote.model_copy(update={"moved_alias": "adopt"})})


def enter(registry: Registry, name: str, version: int, *, verdict: ledger.Verdict = "promote") -> None:
    """Write an entry and nothing else: what a promotion killed right after its commit leaves."""
    ledger.commit(registry.project.ledger, name, "ann", lambda _: Draft(version, version, verdict, "better"))


def crown(registry: Registry, name: str, version: int) -> None:
    enter(registry, name, version)
    projection.follow(registry, name)


def entries(registry: Registry, name: str) -> list[tuple[str, int | None, int | None]]:
    return [(e.verdict, e.from_version, e.to_version) for e in ledger.read(registry.project.ledger, name).entries]


def reconcile(registry: Registry, values: Params) -> Standing:
    return projection.reconcile(registry, values, prefix="test")


def test_nothing_anywhere_is_no_champion_and_no_table(registry: Registry, named: Params) -> None:
    standing = reconcile(registry, named)
    assert (standing.champion, standing.problem) == (None, "")
    assert standing.require() is None


def test_following_sets_the_alias_and_says_which_entry_of_which_ledger(
    registry: Registry, named: Params, make_version: Make
) -> None:
    version = make_version(named.name)
    crown(registry, named.name, version)
    assert registry.alias(named.name, CHAMPION) == version
    view = ledger.read(registry.project.ledger, named.name)
    model = registry.model(named.name)
    assert model is not None
    assert model.tags[LEDGER] == view.ledger_id
    assert model.tags[SEQUENCE] == str(view.entries[-1].sequence)


def test_an_alias_that_agrees_is_left_alone_in_silence(
    registry: Registry, named: Params, make_version: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    crown(registry, named.name, make_version(named.name))
    assert reconcile(registry, named).champion == 1
    assert capsys.readouterr().err == ""


def test_a_promotion_killed_between_entry_and_alias_is_finished(
    registry: Registry, named: Params, make_version: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_version(named.name)
    make_version(named.name)
    crown(registry, named.name, 1)
    enter(registry, named.name, 2)
    assert registry.alias(named.name, CHAMPION) == 1
    assert reconcile(registry, named).champion == 2
    assert registry.alias(named.name, CHAMPION) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"test: {named.name}: finished ledger entry ")
    assert said.count("\n") == 1
    assert len(entries(registry, named.name)) == 2


def test_the_first_promotion_of_all_killed_before_the_alias_is_finished_too(
    registry: Registry, named: Params, make_version: Make
) -> None:
    make_version(named.name)
    enter(registry, named.name, 1)
    assert reconcile(registry, named).champion == 1
    assert registry.alias(named.name, CHAMPION) == 1


def test_an_alias_moved_by_hand_is_reported_and_restored(
    registry: Registry, named: Params, make_version: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_version(named.name)
    make_version(named.name)
    crown(registry, named.name, 1)
    registry.set_alias(named.name, CHAMPION, 2)
    assert reconcile(registry, named).champion == 1
    assert registry.alias(named.name, CHAMPION) == 1
    assert capsys.readouterr().err == (
        f"test: {named.name}: the alias champion was moved by hand from version 1 to 2; restored, as `moved_alias` "
        "says\n"
    )
    assert entries(registry, named.name) == [("promote", None, 1)]


def test_an_alias_moved_by_hand_is_adopted_where_params_say_so(
    registry: Registry, adopting: Params, make_version: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_version(adopting.name)
    make_version(adopting.name)
    crown(registry, adopting.name, 1)
    registry.set_alias(adopting.name, CHAMPION, 2)
    assert reconcile(registry, adopting).champion == 2
    assert "moved by hand from version 1 to 2; adopted as ledger entry " in capsys.readouterr().err
    assert entries(registry, adopting.name) == [("promote", None, 1), ("manual", 1, 2)]
    assert ledger.read(registry.project.ledger, adopting.name).entries[-1].who == "unknown, by hand"
    assert reconcile(registry, adopting).champion == 2
    assert capsys.readouterr().err == ""


def test_an_alias_deleted_by_hand_is_restored_or_adopted(
    registry: Registry, named: Params, adopting: Params, make_version: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_version(named.name)
    crown(registry, named.name, 1)
    registry.set_alias(named.name, CHAMPION, None)
    assert reconcile(registry, named).champion == 1
    assert "the alias champion was deleted by hand; it named version 1; restored" in capsys.readouterr().err
    registry.set_alias(named.name, CHAMPION, None)
    assert reconcile(registry, adopting).champion is None
    assert entries(registry, named.name)[-1] == ("manual", 1, None)
    assert reconcile(registry, adopting).champion is None


def test_a_version_that_calotype_did_not_make_is_never_adopted(
    registry: Registry, adopting: Params, make_version: Make
) -> None:
    make_version(adopting.name)
    crown(registry, adopting.name, 1)
    registry.client.create_model_version(adopting.name, f"{registry.project.root.as_uri()}/nothing")
    registry.set_alias(adopting.name, CHAMPION, 2)
    assert reconcile(registry, adopting).champion == 1
    assert registry.alias(adopting.name, CHAMPION) == 1


def test_an_alias_from_before_the_ledger_is_refused_with_what_to_do_or_adopted(
    registry: Registry, named: Params, adopting: Params, make_version: Make
) -> None:
    make_version(named.name)
    registry.set_alias(named.name, CHAMPION, 1)
    standing = reconcile(registry, named)
    with pytest.raises(UsageError, match=r"`calotype promote 1 --force --reason …`, or set `moved_alias: adopt`"):
        standing.require()
    assert registry.alias(named.name, CHAMPION) == 1
    assert reconcile(registry, adopting).champion == 1
    assert entries(registry, named.name) == [("manual", None, 1)]


def test_a_champion_deleted_in_mlflow_is_reported_and_nobody_takes_its_place(
    registry: Registry, named: Params, make_version: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_version(named.name)
    make_version(named.name)
    crown(registry, named.name, 2)
    registry.client.delete_model_version(named.name, "2")
    standing = reconcile(registry, named)
    expected = f"{named.name} version 2 is the champion and was deleted in MLflow. Run `calotype rollback --to VERSION`"
    assert capsys.readouterr().err.startswith(f"test: {expected}")
    with pytest.raises(UsageError, match=r"was deleted in MLflow.*; there are 1\."):
        standing.require()
    assert registry.alias(named.name, CHAMPION) is None
    assert entries(registry, named.name) == [("promote", None, 2)]


def test_a_deleted_champion_is_told_once_by_those_who_cannot_go_on(
    registry: Registry, named: Params, make_version: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_version(named.name)
    make_version(named.name)
    crown(registry, named.name, 2)
    registry.client.delete_model_version(named.name, "2")
    for act in (releases.champion, promotion.promote, promotion.rollback):
        with pytest.raises(UsageError, match=r"^\S+ version 2 is the champion and was deleted in MLflow[^\n]*$"):
            act(registry.project, named)
    assert capsys.readouterr().err == ""


def test_the_way_back_from_a_deleted_champion_is_not_told_to_who_takes_it(
    registry: Registry, named: Params, make_version: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    for version in (make_version(named.name), make_version(named.name)):
        crown(registry, named.name, version)
    registry.client.delete_model_version(named.name, "2")
    with pytest.raises(CalotypeError, match=r"version 1: MLflow run \w+ has no bundle to download"):
        promotion.rollback(registry.project, named)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_command_prints_a_deleted_champion_once(project: Project, values: Params) -> None:
    with versions.connected(project) as registry:
        registry.client.create_registered_model(values.name)
        version = registry.client.create_model_version(values.name, f"{project.root.as_uri()}/nothing")
        crown(registry, values.name, int(version.version))
        registry.client.delete_model_version(values.name, version.version)
    for command in (["predict", "data/raw/digits/0", "--to", "rows.csv"], ["rollback"], ["promote"]):
        done = run(project, "calotype", *command)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("calotype: digits version 1 is the champion and was deleted in MLflow. Run ")
        assert done.stderr.count("\n") == 1


def test_a_model_deleted_in_mlflow_leaves_no_champion(registry: Registry, named: Params, make_version: Make) -> None:
    crown(registry, named.name, make_version(named.name))
    registry.client.delete_registered_model(named.name)
    with pytest.raises(UsageError, match=r"version 1 is the champion and was deleted in MLflow"):
        reconcile(registry, named).require()


def test_a_model_that_another_ledger_governs_is_refused_by_name(
    registry: Registry, named: Params, make_version: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(registry, named.name, make_version(named.name))
    monkeypatch.setenv("CALOTYPE_LEDGER", "mlruns/another")
    with pytest.raises(UsageError, match=r"found no ledger at .*mlruns/another\. Set CALOTYPE_LEDGER"):
        reconcile(registry, named)
    enter(registry, "somebody-elses", 1)
    with pytest.raises(UsageError, match=r"the ledger \w{8}… governs it, found the ledger \w{8}… at .*another\."):
        reconcile(registry, named)


def test_whoever_sets_the_alias_late_sets_it_right(
    registry: Registry, named: Params, make_version: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its reading the head and its setting the alias, another promotion is done from beginning to end."""
    for _ in range(2):
        make_version(named.name)
    enter(registry, named.name, 1)
    real = Registry.set_alias

    def slowly(self: Registry, name: str, alias: str, number: int | None) -> None:
        monkeypatch.setattr(Registry, "set_alias", real)
        crown(registry, named.name, 2)
        real(self, name, alias, number)
        assert registry.alias(named.name, CHAMPION) == 1

    monkeypatch.setattr(Registry, "set_alias", slowly)
    projection.follow(registry, named.name)
    assert registry.alias(named.name, CHAMPION) == 2


def test_a_challenger_alias_that_moved_on_is_left_alone(registry: Registry, named: Params, make_version: Make) -> None:
    make_version(named.name)
    make_version(named.name)
    registry.set_alias(named.name, "challenger", 2)
    projection.retire_challenger(registry, named.name, 1)
    assert registry.alias(named.name, "challenger") == 2
    projection.retire_challenger(registry, named.name, 2)
    assert registry.alias(named.name, "challenger") is None
