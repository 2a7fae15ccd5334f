"""One set of rows, three formats, the same content; a file appears whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from calotype.errors import UsageError
from calotype.predictions.output import check_output, write
from calotype.predictions.prediction_rows import SCHEMA

MODEL = {"model_name": "digits", "model_version": 3, "run_id": "r"}
ROWS: list[dict[str, Any]] = [
    {
        "path": 'a "quoted", name.png',
        "image_id": "0" * 64,
        "status": "predicted",
        "label": "Käfer",
        "confidence": 0.9,
        "probabilities": [("Käfer", 0.9), ("other, class", 0.1)],
        **MODEL,
    },
    {"path": "b\n.png", "status": "rejected", "reason": "empty: 0 bytes", **MODEL},
]


def batches() -> Iterator[pa.RecordBatch]:
    for row in ROWS:
        yield pa.RecordBatch.from_pylist([row], schema=SCHEMA)


def test_parquet_holds_probabilities_as_a_map_that_polars_reads(tmp_path: Path) -> None:
    write(batches(), SCHEMA, tmp_path / "out.parquet")
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert frame.columns == SCHEMA.names
    assert frame["model_version"].to_list() == [3, 3]
    rows = pa.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [name for name, _ in rows[0]["probabilities"]] == ["Käfer", "other, class"]
    assert rows[1]["probabilities"] is None


def test_csv_holds_probabilities_as_json_and_absent_values_as_empty(tmp_path: Path) -> None:
    write(batches(), SCHEMA, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first["path"] == 'a "quoted", name.png'
    assert json.loads(first["probabilities"]) == {"Käfer": 0.9, "other, class": 0.1}
    assert (second["path"], second["label"], second["probabilities"]) == ("b\n.png", "", "")


def test_jsonl_holds_one_object_a_line_with_every_column(tmp_path: Path) -> None:
    write(batches(), SCHEMA, tmp_path / "out.jsonl")
    first, second = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert first["probabilities"] == {"Käfer": 0.9, "other, class": 0.1}
    assert list(second) == SCHEMA.names
    assert second["confidence"] is None


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_failure_halfway_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    def failing() -> Iterator[pa.RecordBatch]:
        yield from batches()
        raise RuntimeError("halfway")

    (tmp_path / f"out{suffix}").write_text("old")
    with pytest.raises(RuntimeError, match="halfway"):
        write(failing(), SCHEMA, tmp_path / f"out{suffix}")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"found the suffix '\.xlsx'; expected one of \.parquet, \.csv, \.jsonl\."):
        check_output(tmp_path / "out.xlsx")
    with pytest.raises(UsageError, match=r"found the suffix 'none'"):
        check_output(tmp_path / "out")


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").mkdir()
    with pytest.raises(UsageError, match="found a folder; expected the name of a file"):
        check_output(tmp_path / "out.parquet")
