"""Fifteen files give fifteen rows, and an inbox gives each image one row in the table, for ever."""

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
from calotype.predictions import output, prediction, prediction_table
from calotype.predictions.prediction import Means, predict_inbox, predict_to_file
from calotype.project import Project
from calotype.releases.local_bundles import known_champion

pytestmark = pytest.mark.slow

NIGHT = """
import sys
from pathlib import Path
from calotype import params
from calotype.predictions import prediction
from calotype.project import Project
project = Project(Path(sys.argv[1]))
done = prediction.predict_inbox(project, params.load(project.params), inbox=Path(sys.argv[2]), dry_run=False)
print(done.appended)
"""


@pytest.fixture
def at(champion_project: Project) -> Params:
    return params.load(champion_project.params)


@pytest.fixture
def inbox(fifteen_files: Path, tmp_path: Path) -> Path:
    return shutil.copytree(fifteen_files, tmp_path / "inbox", symlinks=True)


@pytest.fixture
def night(champion_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with a table of this test's own."""
    monkeypatch.setenv("CALOTYPE_PREDICT_OUTPUT", str(tmp_path / "table"))
    return champion_project


def table_of(project: Project) -> pl.DataFrame:
    return pl.read_delta(str(project.predictions))


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


def test_a_second_night_appends_only_what_is_new(night: Project, at: Params, inbox: Path) -> None:
    first = predict_inbox(night, at, inbox=inbox, dry_run=False)
    assert (first.files, first.new, first.appended, first.predicted) == (15, 15, 15, 10)
    second = predict_inbox(night, at, inbox=inbox, dry_run=False)
    assert second.summary() == f"{inbox}: 15 files, 0 new: nothing to predict"
    (inbox / "bad-empty.png").write_bytes((inbox / "digit-7.png").read_bytes())
    shutil.copy(inbox / "digit-1.png", inbox / "late.png")
    third = predict_inbox(night, at, inbox=inbox, dry_run=False)
    assert (third.new, third.appended, third.predicted) == (2, 2, 2)
    frame = table_of(night)
    assert frame.height == 17
    assert set(frame["batch_id"]) == {first.batch_id, third.batch_id}
    assert frame["predicted_at"].dtype == pl.Datetime("us", "UTC")
    assert first.summary() == (
        f"{inbox}: 15 files, 15 new: 10 predicted, 5 rejected (1 bad-name, 1 broken-link, 1 corrupt, 1 empty, "
        f"1 unsupported-format) by digits version 1 → {night.predictions}, 15 rows as batch {first.batch_id}"
    )


def test_a_dry_run_says_what_would_be_and_writes_nothing(night: Project, at: Params, inbox: Path) -> None:
    done = predict_inbox(night, at, inbox=inbox, dry_run=True)
    assert (done.new, done.predicted, done.appended) == (15, 10, 0)
    assert done.summary().endswith(f"; dry run, nothing is written to {night.predictions}")
    assert not night.predictions.exists()


def test_an_empty_or_absent_inbox_is_a_quiet_night(night: Project, at: Params, tmp_path: Path) -> None:
    absent = predict_inbox(night, at, inbox=tmp_path / "absent", dry_run=False)
    assert absent.summary() == f"{tmp_path / 'absent'}: 0 files, 0 new (no such folder): nothing to predict"
    (tmp_path / "empty").mkdir()
    empty = predict_inbox(night, at, inbox=tmp_path / "empty", dry_run=False)
    assert empty.summary() == f"{tmp_path / 'empty'}: 0 files, 0 new (no files): nothing to predict"


def test_an_image_that_another_batch_appended_meanwhile_is_left_to_it(
    night: Project, at: Params, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = prediction_table.append

    def late(place: Path, spool: Path) -> int:
        monkeypatch.setattr(prediction_table, "append", append)
        predict_inbox(night, at, inbox=inbox, dry_run=False)
        return append(place, spool)

    monkeypatch.setattr(prediction_table, "append", late)
    done = predict_inbox(night, at, inbox=inbox, dry_run=False)
    assert (done.new, done.appended) == (15, 0)
    assert "(15 were appended by another batch meanwhile)" in done.summary()
    assert table_of(night).height == 15


def test_two_processes_on_one_inbox_append_each_image_once(night: Project, inbox: Path) -> None:
    command = [sys.executable, "-c", NIGHT, str(night.root), str(inbox)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    appended = [int(racer.communicate(timeout=200)[0]) for racer in racers]
    assert sum(appended) == 15
    frame = table_of(night)
    assert frame.height == frame.select("path", "image_id").n_unique() == 15


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
    tally = prediction.Tally(predicted=10)
    tally.rejected.update({"empty": 3, "corrupt": 2})
    assert tally.counts() == "10 predicted, 5 rejected (2 corrupt, 3 empty)"
    assert replace(tally, abstained=3).counts() == "10 predicted (3 abstained), 5 rejected (2 corrupt, 3 empty)"
    assert replace(tally, rejected=type(tally.rejected)()).counts() == "10 predicted, 0 rejected"
