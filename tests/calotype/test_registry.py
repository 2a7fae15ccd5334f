"""Versions are made once, the champion is valid at every instant, and only what was registered is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from calotype import bundle as bundles
from calotype import params, registry, tracking
from calotype.errors import CalotypeError, DataError, UsageError
from calotype.files import read_json, write_json
from calotype.params import Params
from calotype.project import Project
from calotype.run_record import RunRecord

pytestmark = pytest.mark.slow


@pytest.fixture
def evaluated(evaluated_project: Project) -> Project:
    """One project for all tests of this module; each registers a model of its own name there."""
    return evaluated_project


@pytest.fixture
def named(evaluated: Project, request: pytest.FixtureRequest) -> Params:
    """The project's values, with a model name of this test's own."""
    return params.load(evaluated.params).model_copy(
        update={"name": request.node.name[:60].replace("[", ".").strip("]")}
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
    import polars as pl

    bundles.save(alter(bundles.load(project.bundle)), project.bundle)
    digest = bundles.digest(project.bundle)
    record = RunRecord.read(project.run_json)
    record.model_copy(update={"key": digest[:32], "bundle_digest": digest}).write(project.run_json)
    predictions = project.reports / "predictions.parquet"
    about = pl.read_parquet_metadata(predictions) | {"bundle_digest": digest}
    about.pop("ARROW:schema", None)
    pl.read_parquet(predictions).write_parquet(predictions, metadata=about)


def worse(bundle: bundles.Bundle) -> bundles.Bundle:
    """The classes in another order of outputs: wrong for nearly every image."""
    last = [name for name in bundle.weights if name.startswith("classifier")][-2:]
    return replace(bundle, weights=bundle.weights | {name: bundle.weights[name].roll(1, 0) for name in last})


def client_of(project: Project) -> MlflowClient:
    return tracking.connect(project)


def version_of(project: Project, values: Params, alias: str) -> int | None:
    found = registry._by_alias(client_of(project), values.name, alias)
    return None if found is None else int(found.version)


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


def test_the_first_champion_beats_the_majority_and_the_alias_challenger_is_gone(
    evaluated: Project, named: Params
) -> None:
    registry.register(evaluated, named)
    decision = registry.promote(evaluated, named)
    assert decision.summary().startswith(f"promote: {named.name} version 1 is the champion now, the first\n")
    assert version_of(evaluated, named, "champion") == 1
    assert version_of(evaluated, named, "challenger") is None
    champion = registry.champion(evaluated, named)
    assert bundles.digest(champion.bundle_folder) == bundles.digest(evaluated.bundle)
    assert champion.bundle_folder.is_relative_to(evaluated.cache)


def test_the_verdict_and_its_evidence_are_recorded(evaluated: Project, named: Params, tmp_path: Path) -> None:
    run_id = registry.register(evaluated, named).run_id
    registry.promote(evaluated, named)
    kept = json.loads(
        Path(client_of(evaluated).download_artifacts(run_id, "gate/decision.json", str(tmp_path))).read_text()
    )
    assert kept["verdict"] == "promote"
    assert kept["evidence"]["challenger"]["model"] == f"{named.name} version 1"
    tags = client_of(evaluated).get_model_version(named.name, "1").tags
    assert tags["calotype.gate.verdict"] == "promote"


def test_a_margin_that_nobody_reaches_holds_the_first_version(evaluated: Project, named: Params) -> None:
    strict = named.model_copy(update={"promote": named.promote.model_copy(update={"min_margin": 0.95})})
    registry.register(evaluated, strict)
    assert registry.promote(evaluated, strict).verdict == "hold"
    assert version_of(evaluated, named, "champion") is None
    assert version_of(evaluated, named, "challenger") == 1


def test_a_worse_challenger_is_held_and_the_champion_stays(evaluated: Project, named: Params, changed: Any) -> None:
    registry.register(evaluated, named)
    registry.promote(evaluated, named)
    changed(worse)
    assert registry.register(evaluated, named).version == 2
    decision = registry.promote(evaluated, named)
    assert decision.summary().startswith(f"hold: {named.name} version 1 stays the champion\n")
    assert (version_of(evaluated, named, "champion"), version_of(evaluated, named, "challenger")) == (1, 2)


def test_a_better_challenger_takes_the_place(evaluated: Project, named: Params, changed: Any) -> None:
    good = bundles.load(evaluated.bundle)
    changed(worse)
    registry.register(evaluated, named)
    client_of(evaluated).set_registered_model_alias(named.name, "champion", "1")
    client_of(evaluated).delete_registered_model_alias(named.name, "challenger")
    changed(lambda _: good)
    registry.register(evaluated, named)
    assert registry.promote(evaluated, named).promoted
    assert (version_of(evaluated, named, "champion"), version_of(evaluated, named, "challenger")) == (2, None)


def test_classes_that_differ_from_the_champions_are_named_and_never_reindexed(
    evaluated: Project, named: Params, changed: Any
) -> None:
    registry.register(evaluated, named)
    registry.promote(evaluated, named)
    changed(lambda bundle: replace(bundle, classes=(*bundle.classes[:9], "ten")))
    registry.register(evaluated, named)
    with pytest.raises(
        DataError, match=r"version 2 cannot be compared .* it adds 'ten' and lacks '9'\. Expected equal"
    ):
        registry.promote(evaluated, named)
    changed(lambda bundle: replace(bundle, classes=tuple(sorted(bundle.classes, reverse=True))))


def test_without_a_challenger_there_is_nothing_to_promote(evaluated: Project, named: Params) -> None:
    assert registry.promote(evaluated, named).summary() == (
        f"hold: there is nothing to promote: no version of '{named.name}' is the challenger. Run `calotype register`."
    )
    registry.register(evaluated, named)
    registry.promote(evaluated, named)
    assert "version 1 stays the champion" in registry.promote(evaluated, named).summary()


def test_a_promotion_cut_off_after_naming_the_champion_is_finished_by_the_next(
    evaluated: Project, named: Params
) -> None:
    registry.register(evaluated, named)
    client_of(evaluated).set_registered_model_alias(named.name, "champion", "1")
    decision = registry.promote(evaluated, named)
    assert decision.summary() == f"hold: there is nothing to promote: {named.name} version 1 is the champion already"
    assert version_of(evaluated, named, "challenger") is None


def test_registering_the_champion_again_makes_no_challenger(evaluated: Project, named: Params) -> None:
    registry.register(evaluated, named)
    registry.promote(evaluated, named)
    assert registry.register(evaluated, named).alias == "champion"
    assert version_of(evaluated, named, "challenger") is None


def test_without_a_champion_the_error_names_the_two_commands(evaluated: Project, named: Params) -> None:
    with pytest.raises(UsageError, match=r"is the champion\. Run `calotype register`, then `calotype promote`\."):
        registry.champion(evaluated, named)


def test_a_damaged_copy_in_the_cache_is_fetched_again(evaluated: Project, named: Params) -> None:
    registry.register(evaluated, named)
    registry.promote(evaluated, named)
    folder = registry.champion(evaluated, named).bundle_folder
    weights = folder / bundles.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\0" + b"\1")
    registry.champion(evaluated, named)
    assert weights.read_bytes() == whole


def test_a_bundle_changed_in_mlflows_store_is_refused(evaluated: Project, named: Params, changed: Any) -> None:
    changed(lambda bundle: replace(bundle, temperature=1.5))
    version = registry.register(evaluated, named)
    client_of(evaluated).set_registered_model_alias(named.name, "champion", "1")
    store = Path(client_of(evaluated).get_run(version.run_id).info.artifact_uri.removeprefix("file://"))
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
    client.set_registered_model_alias(named.name, "champion", "1")
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
