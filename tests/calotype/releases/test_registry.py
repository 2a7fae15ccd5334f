"""Versions are made once, the champion is who the ledger says, and only what was registered is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mlflow import MlflowClient

from calotype import params, tracking
from calotype.errors import CalotypeError, DataError, UsageError
from calotype.evaluation import scoring
from calotype.files import read_json, write_json
from calotype.learning import bundle as bundles
from calotype.learning.run_record import RunRecord
from calotype.pages import report_files
from calotype.params import Params
from calotype.project import Project
from calotype.releases import history, ledger, promotion, registry, versions
from calotype.releases.promotion import Ruling
from tests.conftest import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evaluated(make_evaluated: Callable[[], Project]) -> Project:
    """One project for all tests of this module, and for no other; each registers a model of its own name there."""
    return make_evaluated()


@pytest.fixture
def named(evaluated: Project, request: pytest.FixtureRequest) -> Params:
    """The project's values, with a model name of this test's own."""
    return params.load(evaluated.params).model_copy(
        update={"name": request.node.name[:80].replace("[", ".").strip("]")}
    )


@pytest.fixture
def changed(evaluated: Project, tmp_path: Path) -> Any:
    """A function that changes the registered project's bundle for this test, as another training would have."""
    for name in ("models", "reports"):
        shutil.copytree(evaluated.root / name, tmp_path / name)

    def change(alter: Callable[[bundles.Bundle], bundles.Bundle]) -> None:
        retrain(evaluated, alter)

    yield change
    for name in ("models", "reports"):
        shutil.rmtree(evaluated.root / name)
        shutil.copytree(tmp_path / name, evaluated.root / name)


def retrain(project: Project, alter: Callable[[bundles.Bundle], bundles.Bundle]) -> None:
    """Put an altered bundle into models/, recorded and evaluated as a training of its own."""
    bundle = alter(bundles.load(project.bundle))
    bundles.save(bundle, project.bundle)
    digest = bundles.digest(project.bundle)
    record = RunRecord.read(project.run_json)
    record.model_copy(update={"key": digest[:32], "bundle_digest": digest}).write(project.run_json)
    predictions = project.reports / "predictions.parquet"
    about = pl.read_parquet_metadata(predictions) | {"bundle_digest": digest}
    about.pop("ARROW:schema", None)
    rows = pl.read_parquet(predictions)
    rows.write_parquet(predictions, metadata=about)
    answers = scoring.classify(params.load(project.params), project, bundle, rows["image_id"].to_list())
    golden = rows.with_columns(pl.Series("probabilities", answers).cast(pl.List(pl.Float32)))
    report_files.write_golden(golden, project.dataset, digest, bundle.classes, project.reports)


def worse(bundle: bundles.Bundle) -> bundles.Bundle:
    """The classes in another order of outputs: wrong for nearly every image."""
    last = [name for name in bundle.weights if name.startswith("classifier")][-2:]
    return replace(bundle, weights=bundle.weights | {name: bundle.weights[name].roll(1, 0) for name in last})


def client_of(project: Project) -> MlflowClient:
    return tracking.connect(project)


def version_of(project: Project, values: Params, alias: str) -> int | None:
    return versions.Registry(project, client_of(project)).alias(values.name, alias)


def artifacts_of(project: Project, run_id: str) -> Path:
    return Path(client_of(project).get_run(run_id).info.artifact_uri.removeprefix("file://"))


def crown(project: Project, values: Params, number: int) -> None:
    """Make a version champion without asking the gate."""
    ruling = Ruling("promote", (f"version {number}",), {"by": "test"})
    with versions.connected(project) as connected:
        promotion.settle(connected, values.name, number, lambda _: ruling)


def moves(project: Project, values: Params) -> list[tuple[str, int | None, int | None, int | None]]:
    entries = ledger.read(project.ledger, values.name).entries
    return [(entry.verdict, entry.version, entry.from_version, entry.to_version) for entry in entries]


def test_registering_twice_makes_one_version_with_the_tags_of_its_origin(evaluated: Project, named: Params) -> None:
    first = registry.register(evaluated, named)
    second = registry.register(evaluated, named)
    assert (first.created, second.created) == (True, False)
    assert first.version == second.version == 1
    assert len(client_of(evaluated).search_model_versions(f"name = '{named.name}'")) == 1
    tags = client_of(evaluated).get_model_version(named.name, "1").tags
    record = RunRecord.read(evaluated.run_json)
    assert tags["calotype.run_key"] == record.key
    assert tags["calotype.bundle_digest"] == bundles.digest(evaluated.bundle)
    assert tags["calotype.git_commit"] == record.environment["git_commit"]
    assert tags["calotype.data_digest"] == record.dataset["digest"]
    scored = pl.read_parquet_metadata(evaluated.reports / "predictions.parquet")
    assert tags["calotype.split_digest"] == scored["split_digest"]
    accuracy = read_json(evaluated.reports / "metrics.json")["accuracy"]
    assert float(tags["calotype.test.accuracy"]) == pytest.approx(accuracy, abs=1e-5)
    assert first.summary().splitlines()[0] == (
        f"{named.name} version 1 made: challenger, test accuracy {accuracy:.4f}, MLflow run {first.run_id}"
    )
    assert "no DVC remote is configured" in first.summary()


def test_mlflows_own_loader_answers_probabilities_under_the_alias(evaluated: Project, named: Params) -> None:
    import mlflow.pyfunc

    registry.register(evaluated, named)
    loaded = mlflow.pyfunc.load_model(f"models:/{named.name}@challenger")
    answers = loaded.predict(np.zeros((3, 1, 8, 8), np.uint8))
    assert answers.shape == (3, 10)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("changed")
def test_evaluated_anew_a_version_tells_of_the_new_split(evaluated: Project, named: Params) -> None:
    registry.register(evaluated, named)
    predictions = evaluated.reports / "predictions.parquet"
    about = pl.read_parquet_metadata(predictions)
    about.pop("ARROW:schema", None)
    rows = pl.read_parquet(predictions)
    rows.with_columns(pl.lit("0" * 64).alias("image_id")).write_parquet(predictions, metadata=about)
    before = client_of(evaluated).get_model_version(named.name, "1").tags["calotype.split_digest"]
    assert registry.register(evaluated, named).created is False
    assert client_of(evaluated).get_model_version(named.name, "1").tags["calotype.split_digest"] != before
    with pytest.raises(DataError, match=r"`dvc repro evaluate`"):
        promotion.promote(evaluated, named)
    assert moves(evaluated, named) == []


def test_the_first_champion_reproduces_its_golden_images_and_the_evidence_is_kept(
    evaluated: Project, named: Params, tmp_path: Path
) -> None:
    run_id = registry.register(evaluated, named).run_id
    decision = promotion.promote(evaluated, named, who="amber-otter")
    assert decision.summary().startswith(f"promote: {named.name} version 1 ")
    assert (version_of(evaluated, named, "champion"), version_of(evaluated, named, "challenger")) == (1, None)
    champion = registry.champion(evaluated, named)
    assert bundles.digest(champion.bundle_folder) == bundles.digest(evaluated.bundle)
    assert champion.bundle_folder.is_relative_to(evaluated.cache)
    (entry,) = ledger.read(evaluated.ledger, named.name).entries
    assert entry.who == "amber-otter"
    path = f"gate/decision-{entry.evidence_digest[:12]}.json"
    kept = json.loads(Path(client_of(evaluated).download_artifacts(run_id, path, str(tmp_path))).read_text())
    assert kept["verdict"] == "promote"
    check = kept["evidence"]["load_check"]
    assert (check["images"], check["problem"]) == (32, "")
    assert check["largest_difference"] <= check["tolerance"] == 1e-4
    assert kept["evidence"]["excluded"]["seen"] == 0
    assert client_of(evaluated).get_model_version(named.name, "1").tags["calotype.gate.verdict"] == "promote"
    (shown,) = history.history(evaluated, named)
    assert shown == entry


def test_a_worse_challenger_is_refused_then_forced_then_rolled_back(
    evaluated: Project, named: Params, changed: Any
) -> None:
    """Each step is an entry; force still asks the fresh process, and so does the way back."""
    registry.register(evaluated, named)
    crown(evaluated, named, 1)
    changed(worse)
    assert registry.register(evaluated, named).version == 2
    refused = promotion.promote(evaluated, named)
    assert refused.summary().startswith(f"reject: {named.name} version 2 ")
    assert (version_of(evaluated, named, "champion"), version_of(evaluated, named, "challenger")) == (1, 2)
    forced = promotion.promote(evaluated, named, 2, force=True, reason="the belt was rebuilt")
    lines = forced.summary().splitlines()
    assert lines[0] == (
        f"forced: {named.name} version 2 is the champion now, in place of version 1, because: the belt was rebuilt"
    )
    assert lines[1].startswith("  in a fresh process it reproduces 32 golden images")
    assert lines[2].startswith(f"  the gate: reject: {named.name} version 2 ")
    assert (version_of(evaluated, named, "champion"), version_of(evaluated, named, "challenger")) == (2, None)
    back = promotion.rollback(evaluated, named)
    assert back.summary().startswith(
        f"rollback: {named.name} version 1 is the champion again, in place of version 2\n  in a fresh process it "
    )
    assert version_of(evaluated, named, "champion") == 1
    assert [move[0] for move in moves(evaluated, named)] == ["promote", "reject", "forced", "rollback"]
    assert registry.champion(evaluated, named).version == 1


def test_images_that_a_version_trained_on_are_left_out_and_unknown_ones_said(
    evaluated: Project, named: Params, changed: Any
) -> None:
    """Half of today's test split was in the challenger's training; the champion's run keeps no splits."""
    record = registry.register(evaluated, named)
    crown(evaluated, named, 1)
    shutil.rmtree(artifacts_of(evaluated, record.run_id) / "inputs")
    changed(lambda bundle: replace(bundle, mean=(0.31,)))
    second = registry.register(evaluated, named)
    splits = pl.read_parquet(evaluated.splits)
    test = splits.filter(pl.col("split") == "test")["image_id"].sort().to_list()
    moved = pl.when(pl.col("image_id").is_in(test[::2])).then(pl.lit("train")).otherwise(pl.col("split"))
    splits.with_columns(moved.alias("split")).write_parquet(
        artifacts_of(evaluated, second.run_id) / "inputs" / "splits.parquet"
    )
    decision = promotion.promote(evaluated, named)
    evidence = decision.ruling.evidence["evidence"]
    assert evidence["excluded"]["seen"] == evidence["excluded"]["by_challenger"] == len(test[::2])
    assert evidence["images"] == len(test) - len(test[::2])
    assert (
        f"{named.name} version 1: its run keeps no inputs/splits.parquet, so no test image is left out as seen by it"
        in decision.ruling.reasons
    )


def test_a_model_that_answers_otherwise_than_logged_is_never_champion(
    evaluated: Project, named: Params, changed: Any
) -> None:
    changed(lambda bundle: replace(bundle, mean=(0.29,)))
    run_id = registry.register(evaluated, named).run_id
    golden = artifacts_of(evaluated, run_id) / "golden" / "golden.parquet"
    rows = pl.read_parquet(golden)
    about = pl.read_parquet_metadata(golden)
    about.pop("ARROW:schema", None)
    wrong = pl.col("probabilities").list.eval(pl.element().reverse())
    rows.with_columns(wrong).write_parquet(golden, metadata=about)
    assert promotion.promote(evaluated, named).verdict == "reject"
    forced = promotion.promote(evaluated, named, 1, force=True, reason="I insist")
    assert forced.summary().startswith(f"reject: {named.name} version 1 is not made champion, force or not: in a fresh")
    assert [move[0] for move in moves(evaluated, named)] == ["reject", "reject"]
    assert version_of(evaluated, named, "champion") is None


def test_classes_that_differ_from_the_champions_are_named_and_nothing_is_written(
    evaluated: Project, named: Params, changed: Any
) -> None:
    registry.register(evaluated, named)
    crown(evaluated, named, 1)
    changed(lambda bundle: replace(bundle, classes=(*bundle.classes[:9], "ten")))
    registry.register(evaluated, named)
    with pytest.raises(DataError, match=r"'ten'"):
        promotion.promote(evaluated, named)
    assert moves(evaluated, named) == [("promote", 1, None, 1)]
    forced = promotion.promote(evaluated, named, force=True, reason="other classes from today")
    assert forced.verdict == "forced"
    assert "the gate: it cannot judge: " in forced.summary()


@pytest.mark.timeout(600)
def test_the_commands_force_roll_back_and_tell_the_history(
    evaluated: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path / "project")
    shutil.copytree(evaluated.root, project.root, ignore=shutil.ignore_patterns("mlruns", ".cache"), symlinks=True)
    tracking.connect(project)
    values = params.load(project.params)
    registry.register(project, values)
    crown(project, values, 1)
    retrain(project, worse)
    registry.register(project, values)
    monkeypatch.setenv("COLUMNS", "200")
    refused = run(project, "calotype", "promote", "--force")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "found no reason" in refused.stderr
    forced = run(project, "calotype", "promote", "2", "--force", "--reason", "a [bold] step")
    assert forced.stdout.startswith("forced: digits version 2 is the champion now, in place of version 1, because: a")
    back = run(project, "calotype", "rollback")
    assert back.stdout.startswith("rollback: digits version 1 is the champion again"), back.stderr
    told = json.loads(run(project, "calotype", "history", "--json").stdout)
    assert [(entry["verdict"], entry["from_version"], entry["to_version"]) for entry in told] == [
        ("rollback", 2, 1),
        ("forced", 1, 2),
        ("promote", None, 1),
    ]
    shown = run(project, "calotype", "history").stdout
    assert "1 → 2" in shown
    assert "a [bold] step" in shown


def test_registering_the_champion_again_makes_no_challenger(evaluated: Project, named: Params) -> None:
    registry.register(evaluated, named)
    crown(evaluated, named, 1)
    assert registry.register(evaluated, named).alias == "champion"
    assert version_of(evaluated, named, "challenger") is None


def test_without_a_champion_the_error_names_the_two_commands(evaluated: Project, named: Params) -> None:
    with pytest.raises(UsageError, match=r"is the champion\. Run `calotype register`, then `calotype promote`\."):
        registry.champion(evaluated, named)


def test_a_damaged_copy_in_the_cache_is_fetched_again(evaluated: Project, named: Params) -> None:
    registry.register(evaluated, named)
    crown(evaluated, named, 1)
    folder = registry.champion(evaluated, named).bundle_folder
    weights = folder / bundles.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\0" + b"\1")
    registry.champion(evaluated, named)
    assert weights.read_bytes() == whole


def test_a_bundle_changed_in_mlflows_store_is_refused(evaluated: Project, named: Params, changed: Any) -> None:
    changed(lambda bundle: replace(bundle, temperature=1.5))
    version = registry.register(evaluated, named)
    crown(evaluated, named, 1)
    store = artifacts_of(evaluated, version.run_id)
    weights = store / "bundle" / bundles.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match=r"version 1: the bundle in MLflow run .* is not the one registered"):
        registry.champion(evaluated, named)
    shutil.rmtree(store / "bundle")
    with pytest.raises(CalotypeError, match=r"has no bundle to download"):
        registry.champion(evaluated, named)


def test_a_version_that_someone_made_by_hand_is_not_used(evaluated: Project, named: Params) -> None:
    client = client_of(evaluated)
    client.create_registered_model(named.name)
    client.create_model_version(named.name, evaluated.bundle.as_uri())
    ledger.commit(evaluated.ledger, named.name, "ann", lambda _: ledger.Draft(1, 1, "forced", "by hand"))
    with pytest.raises(UsageError, match=r"version 1: was not made by `calotype register`"):
        registry.champion(evaluated, named)


def test_files_of_two_trainings_are_not_registered(evaluated: Project, named: Params, changed: Any) -> None:
    changed(lambda bundle: bundle)
    bundles.save(replace(bundles.load(evaluated.bundle), temperature=2.0), evaluated.bundle)
    with pytest.raises(UsageError, match=r"models/model and models/run\.json come from two trainings"):
        registry.register(evaluated, named)


def test_figures_of_another_model_are_not_registered(evaluated: Project, named: Params, changed: Any) -> None:
    changed(lambda bundle: bundle)
    metrics = evaluated.reports / "metrics.json"
    figures = read_json(metrics)
    write_json(metrics, figures | {"accuracy": figures["accuracy"] / 2})
    with pytest.raises(UsageError, match=r"holds figures of another model .* Run `dvc repro evaluate`\."):
        registry.register(evaluated, named)
    metrics.unlink()
    with pytest.raises(UsageError, match=r"reports/metrics\.json: no such file\. Run `dvc repro evaluate`"):
        registry.register(evaluated, named)


def test_a_push_that_fails_leaves_the_version_and_says_so(evaluated: Project, named: Params) -> None:
    dvc_config = evaluated.root / ".dvc" / "config.local"
    dvc_config.write_text("[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = /dev/null/shelf\n")
    try:
        with pytest.raises(CalotypeError, match=r"version 1 is registered as challenger, but `dvc push` to the remote"):
            registry.register(evaluated, named)
    finally:
        dvc_config.unlink()
    assert version_of(evaluated, named, "challenger") == 1


def test_without_a_training_the_error_says_how_to_get_one(project: Project) -> None:
    with pytest.raises(UsageError, match=r"models/run\.json: no such file\. Run `dvc repro` to train a model first\."):
        registry.register(project, params.load(project.params))
