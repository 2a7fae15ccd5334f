"""Fifteen files give fifteen rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from calotype import params
from calotype.errors import DataError, ParamsError, UsageError
from calotype.params import Params
from calotype.predictions import answering, output
from calotype.predictions.answering import Means
from calotype.predictions.prediction import predict_to_file
from calotype.project import Project
from calotype.releases.local_bundles import known_champion

pytestmark = pytest.mark.slow


@pytest.fixture
def at(champion_project: Project) -> Params:
    return params.load(champion_project.params)


@pytest.fixture
def inbox(fifteen_files: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fifteen_files, tmp_path / "inbox", symlinks=True)


def test_ten_good_and_five_bad_files_give_fifteen_rows_and_one_line(
    champion_project: Project, at: Params, inbox: Path, tmp_path: Path
) -> None:
    done = predict_to_file(champion_project, at, inbox, tmp_path / "out.parquet")
    assert done.summary() == (
        "15 files: 10 predicted, 5 rejected (1 bad-name, 1 broken-link, 1 corrupt, 1 empty, 1 unsupported-format) "
        f"by digits version 1 → {tmp_path / 'out.parquet'}"
    )
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame["status"].value_counts().sort("status").rows() == [("predicted", 10), ("rejected", 5)]
    assert frame["path"].to_list() == sorted(frame["path"].to_list())
    assert frame.filter(pl.col("status") == "rejected")["reason"].null_count() == 0
    assert frame["model_name"].unique().to_list() == ["digits"]


def test_each_format_holds_the_same_predictions(
    champion_project: Project, at: Params, inbox: Path, tmp_path: Path
) -> None:
    frames = {}
    for suffix in (".parquet", ".csv", ".jsonl"):
        predict_to_file(champion_project, at, inbox, tmp_path / f"out{suffix}")
    frames["parquet"] = pl.read_parquet(tmp_path / "out.parquet")
    frames["csv"] = pl.read_csv(tmp_path / "out.csv")
    frames["jsonl"] = pl.read_ndjson(tmp_path / "out.jsonl", infer_schema_length=None)
    columns = ["path", "image_id", "status", "reason", "label", "model_version", "run_id"]
    labels = {name: frame.select(pl.col(columns).cast(pl.String)) for name, frame in frames.items()}
    assert labels["csv"].equals(labels["parquet"])
    assert labels["jsonl"].equals(labels["parquet"])


def test_a_table_of_paths_gives_a_row_for_each_of_its_rows(champion_project: Project, at: Params, inbox: Path) -> None:
    (inbox / "list.csv").write_text("path\ndigit-3.png\nabsent.png\ndigit-3.png\n")
    predict_to_file(champion_project, at, inbox / "list.csv", inbox / "out.jsonl")
    rows = [json.loads(line) for line in (inbox / "out.jsonl").read_text().splitlines()]
    assert [(row["path"], row["status"]) for row in rows] == [
        ("digit-3.png", "predicted"),
        ("absent.png", "rejected"),
        ("digit-3.png", "predicted"),
    ]
    assert rows[1]["reason"] == "missing: no such file"


def test_an_output_inside_the_input_is_never_an_input(champion_project: Project, at: Params, inbox: Path) -> None:
    for _ in range(2):
        assert predict_to_file(champion_project, at, inbox, inbox / "out.csv").files == 15


def test_preprocessing_comes_from_the_bundle_not_from_params(
    champion_project: Project, at: Params, inbox: Path, tmp_path: Path
) -> None:
    other = at.model_copy(update={"image": at.image.model_copy(update={"size": 32, "channels": 3})})
    predict_to_file(champion_project, at, inbox, tmp_path / "one.parquet")
    predict_to_file(champion_project, other, inbox, tmp_path / "two.parquet")
    assert pl.read_parquet(tmp_path / "one.parquet").equals(pl.read_parquet(tmp_path / "two.parquet"))


def test_a_folder_of_nothing_is_a_data_error_that_says_what_was_found(
    champion_project: Project, at: Params, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").write_bytes(b"x")
    with pytest.raises(DataError, match=r"empty: found no files \(1 hidden or system files ignored\); expected images"):
        predict_to_file(champion_project, at, tmp_path / "empty", tmp_path / "out.csv")


def test_a_wrong_suffix_is_refused_before_anything_is_read(
    champion_project: Project, at: Params, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"--to out\.txt: found the suffix '\.txt'"):
        predict_to_file(champion_project, at, tmp_path / "absent", Path("out.txt"))


def test_a_device_that_is_not_there_is_refused_by_the_option_that_named_it(
    champion_project: Project, at: Params, inbox: Path, tmp_path: Path
) -> None:
    with pytest.raises(ParamsError, match=r"^--device: found 'abacus', which this machine lacks; here there is .*cpu"):
        predict_to_file(champion_project, at, inbox, tmp_path / "out.csv", Means(device="abacus"))


def test_memory_holds_batches_not_the_whole_inbox(
    champion_project: Project, at: Params, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "ROWS_AT_ONCE", 4)
    predict_to_file(champion_project, at, inbox, tmp_path / "out.parquet", Means(batch_size=4, workers=2))
    import pyarrow.parquet as pq

    groups = pq.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups
    assert groups == 4


def test_a_known_champion_needs_neither_mlflow_nor_matplotlib_nor_prefect(
    champion_project: Project, inbox: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.argv = ['calotype', 'predict', *sys.argv[1:]]\n"
        "from calotype import cli\n"
        "try:\n    cli.main()\nfinally:\n"
        "    print(sorted({'mlflow', 'matplotlib', 'prefect', 'sklearn'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(inbox), "--to", str(tmp_path / "out.csv"), "--workers", "1"]
    environment = os.environ | {"CALOTYPE_ROOT": str(champion_project.root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "10 predicted, 5 rejected" in done.stdout


def test_without_its_bundle_here_the_champion_is_asked_of_the_registry(
    champion_project: Project, at: Params, inbox: Path, tmp_path: Path
) -> None:
    known = known_champion(champion_project, at.name)
    assert known is not None
    (known.bundle_folder / "model.safetensors").unlink()
    assert known_champion(champion_project, at.name) is None
    predict_to_file(champion_project, at, inbox, tmp_path / "out.csv")
    assert known_champion(champion_project, at.name) == known


def test_a_tally_names_the_codes_in_order() -> None:
    tally = answering.Tally(predicted=10)
    tally.rejected.update({"empty": 3, "corrupt": 2})
    assert tally.counts() == "10 predicted, 5 rejected (2 corrupt, 3 empty)"
    assert replace(tally, abstained=3).counts() == "10 predicted (3 abstained), 5 rejected (2 corrupt, 3 empty)"
    assert replace(tally, rejected=type(tally.rejected)()).counts() == "10 predicted, 0 rejected"
