"""The chain from a prediction to its source, on real rows, a real registry, real git and a real DVC cache."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from calotype import params, tracking
from calotype.cli import app
from calotype.errors import CalotypeError, UsageError
from calotype.files import sha256_of
from calotype.learning.run_record import RunRecord
from calotype.predictions import scheduled
from calotype.predictions.tables import PREDICTIONS
from calotype.project import Project
from calotype.provenance.trace import Trace, trace
from calotype.releases import model_card
from tests.production_tables import append

pytestmark = pytest.mark.slow

LEARNED = "data/raw/digits/0/0000.pgm"
"""An image of the dataset that lies in the inbox, too."""


@pytest.fixture(scope="module")
def predicted(champion_project: Project, fifteen_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the champion's project with a batch of ten digits, five files that are none, and a training image."""
    project = Project(tmp_path_factory.mktemp("predicted") / "project")
    shutil.copytree(champion_project.root, project.root, symlinks=True)
    shutil.copytree(fifteen_files, project.inbox, symlinks=True)
    (Path(project.inbox) / "learned.pgm").write_bytes((project.root / LEARNED).read_bytes())
    scheduled.predict_inbox(project, params.load(project.params))
    return project


@pytest.fixture(scope="module")
def batch_id(predicted: Project) -> str:
    """The id of its one batch."""
    return str(pl.read_delta(predicted.table("files"))["batch_id"][0])


def follow(project: Project, what: str, path: str | None = None, *, images: bool = False) -> Trace:
    return trace(project, params.load(project.params), what, path, images=images)


def split_of(project: Project, name: str) -> str:
    """Where an image went."""
    image_id = sha256_of(project.root / name)
    return str(pl.read_parquet(project.splits).filter(pl.col("image_id") == image_id)["split"][0])


def test_a_row_leads_to_version_promotion_run_commit_data_and_parameters(predicted: Project, batch_id: str) -> None:
    found = follow(predicted, batch_id, "digit-3.png")
    record = RunRecord.read(predicted.run_json)
    (row,), (chain,) = found.rows, found.chains
    assert (row["path"], row["status"], row["model_version"]) == ("digit-3.png", "predicted", 1)
    assert chain.links["version"].value["bundle_digest"] == record.bundle_digest
    assert chain.links["promotion"].value["verdict"] == "promote"
    assert chain.links["run"].value["run_id"] == row["run_id"]
    commit = chain.links["commit"].value
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=predicted.root, capture_output=True, text=True)
    assert (commit["commit"], commit["subject"]) == (head.stdout.strip(), "Start")
    assert commit["changed_files"] == [".dvc/config"]
    data = chain.links["data"].value
    assert (data["digest"], data["dvc_md5"]) == (record.dataset["digest"], record.dataset["dvc_md5"])
    assert data["shards"] == ["shard-00001-00000.parquet"]
    assert chain.links["parameters"].value["train.lr"] == 0.003
    assert chain.missing == {}
    assert found.is_whole


def test_a_batch_and_a_run_and_a_version_lead_to_the_same_chain(predicted: Project, batch_id: str) -> None:
    by_batch = follow(predicted, batch_id)
    run_id = by_batch.chains[0].links["run"].value["run_id"]
    assert by_batch.batch["files"] == 16
    assert (by_batch.batch["rejected"], by_batch.batch["answers"]) == (5, 11)
    links = by_batch.chains[0].as_json()
    for what in (run_id, "1", "digits/1"):
        assert follow(predicted, what).chains[0].as_json() == links


def test_a_batch_that_asked_a_new_champion_again_is_found_by_its_answers(predicted: Project, tmp_path: Path) -> None:
    project = Project(shutil.copytree(predicted.root, tmp_path / "project", symlinks=True))
    again = pl.read_delta(project.table("predictions")).filter(pl.col("path") == "digit-3.png")
    later = pl.col("predicted_at") + timedelta(days=1)
    again = again.with_columns(pl.lit("rescore").alias("batch_id"), later, pl.lit(2, pl.Int64).alias("model_version"))
    append(project.table("predictions"), PREDICTIONS, again.to_arrow().cast(PREDICTIONS.schema))
    found = follow(project, "rescore")
    assert (found.batch["files"], found.batch["answers"]) == (0, 1)
    assert "version digits/2 is not in MLflow" in found.chains[0].missing["version"]
    (row,) = follow(project, "rescore", "digit-3.png").rows
    assert (row["batch_id"], row["model_version"]) == ("rescore", 2)
    with pytest.raises(UsageError, match=r"absent.png: no file of batch rescore has this path, of 1 file such as 'dig"):
        follow(project, "rescore", "absent.png")
    with pytest.raises(UsageError, match=r"its last batches: 20\S+, rescore\)"):
        follow(project, "nothing")


def test_an_image_file_is_found_by_its_content_and_says_whether_the_model_learned_from_it(
    predicted: Project, batch_id: str, tmp_path: Path
) -> None:
    copy = tmp_path / "another name.pgm"
    copy.write_bytes((Path(predicted.inbox) / "learned.pgm").read_bytes())
    found = follow(predicted, str(copy))
    assert [row["path"] for row in found.rows] == ["learned.pgm"]
    split = split_of(predicted, LEARNED)
    assert found.rows[0]["seen"] == split
    assert (found.image["split"], found.image["label"]) == (split, "0")
    other = follow(predicted, batch_id, "digit-3.png")
    assert other.rows[0]["seen"] is None


def test_an_image_that_was_never_predicted_says_so(predicted: Project) -> None:
    source = predicted.root / "data/raw/digits/1/0001.pgm"
    found = follow(predicted, str(source))
    assert not found.rows
    assert found.image["label"] == "1"
    assert not found.is_whole
    assert "is in no scheduled prediction" in found.missing["predictions"]
    assert found.as_json()["missing"] == {"predictions": found.missing["predictions"]}


def test_the_images_are_those_the_model_learned_from(predicted: Project) -> None:
    chain = follow(predicted, "1", images=True).chains[0]
    listed = pl.DataFrame(chain.links["images"].value["images"])
    splits = pl.read_parquet(predicted.splits).filter(pl.col("split").is_in(["train", "val"]))
    assert listed["image_id"].to_list() == sorted(splits["image_id"])
    assert listed["path"].null_count() == 0
    assert set(listed["split"]) == {"train", "val"}


@pytest.mark.parametrize(
    ("what", "path", "message"),
    [
        ("digits/7", None, "digits/7: no such version in MLflow at sqlite.*; known versions of digits: 1"),
        ("nobody/1", None, "nobody/1: no such version in MLflow at sqlite.*; nobody has none"),
        ("0" * 32, None, "0{32}: no such run in MLflow"),
        (
            "nothing.png",
            None,
            r"nothing.png: no file, no version, .* no batch of data/predictions .*its last batches: 20",
        ),
        ("BATCH", "absent.png", "absent.png: no file of batch .* has this path, of 16 files"),
    ],
)
def test_what_is_unknown_is_one_line(
    predicted: Project, batch_id: str, what: str, path: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        follow(predicted, batch_id if what == "BATCH" else what, path)
    assert "\n" not in str(error.value)


def test_a_server_that_does_not_answer_is_one_line(predicted: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(CalotypeError, match=r"^mlflow: no answer from http://127\.0\.0\.1:1"):
        follow(predicted, "1")


def test_each_missing_link_is_named_in_its_place(
    predicted: Project, batch_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ignored = shutil.ignore_patterns("ledger", "cache", "shard-*")
    shutil.copytree(predicted.root, tmp_path / "project", ignore=ignored, symlinks=True)
    # A store names its artifacts by absolute paths: this one's are still the other's.
    project = Project(tmp_path / "project")
    (project.dataset / "digests.json").unlink()
    shutil.rmtree(project.root / ".git")
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    client = tracking.connect(project)
    run_id = follow(project, "1").chains[0].links["run"].value["run_id"]
    client.delete_run(run_id)
    client.delete_model_version("digits", "1")
    chain = follow(project, batch_id, "digit-3.png").chains[0]
    assert set(chain.missing) == {"version", "promotion", "run", "commit", "data"}
    assert chain.missing["version"] == "version digits/1 is not in MLflow: deleted there"
    assert chain.missing["promotion"].startswith("the ledger holds no promotion of digits/1 before ")
    assert chain.missing["run"] == f"run deleted in MLflow: `mlflow runs restore --run-id {run_id}` brings it back"
    assert chain.missing["commit"].endswith("is not in this repository: `git fetch`")
    assert "the list of its shards is not in the DVC cache" in chain.missing["data"]
    monkeypatch.chdir(project.root)
    done = CliRunner().invoke(app, ["trace", batch_id, "digit-3.png"])
    assert done.exit_code == 1
    assert done.stdout.count("MISSING ") == 5


def test_the_model_card_is_the_versions_description(predicted: Project) -> None:
    client = tracking.connect(predicted)
    version = client.get_model_version("digits", "1")
    assert version.description.startswith("# Model card: digits version 1\n\n**Intended use.** Tell 0, 1, 2, 3 and 6")
    assert version.description.endswith("`calotype reproduce 1`\n")
    card = (predicted.reports / "card.md").read_text(encoding="utf-8")
    assert version.description == model_card.with_version(card, "digits", "1")
    assert "report/card.md" in {item.path for item in client.list_artifacts(version.run_id, "report")}


def test_the_command_prints_an_indented_chain_and_json(
    predicted: Project, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(predicted.root)
    done = CliRunner().invoke(app, ["trace", batch_id, "digit-3.png"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "prediction digit-3.png"
    assert lines[1].startswith("  digit-3.png: '")
    assert lines[2].startswith("  version digits/1, registered 20")
    assert [line.split(":")[0].split()[0] for line in lines if line.startswith("    ") and line[4] != " "] == [
        "promotion", "MLflow", "git", "data", "parameters", "no"
    ]  # fmt: skip
    plain = CliRunner().invoke(app, ["trace", "1", "--json", "--images"])
    assert plain.exit_code == 0, plain.output
    value = json.loads(plain.stdout)
    assert list(value) == ["kind", "what", "predictions", "batch", "image", "chains", "missing", "is_whole"]
    assert list(value["chains"][0]) == [
        "version", "promotion", "run", "commit", "data", "parameters", "flow_run", "images", "missing"
    ]  # fmt: skip
    assert value["chains"][0]["images"]["images"]
    assert value["missing"] == value["chains"][0]["missing"] == {}
    assert value["chains"][0]["parameters"] == params.flatten(params.load(predicted.params))
