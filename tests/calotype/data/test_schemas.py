"""Schemas let good tables pass, and say in a few lines what is wrong with bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from calotype.data.dataset import MANIFEST_SCHEMA
from calotype.data.intake import REJECTS_SCHEMA
from calotype.data.schemas import validate
from calotype.data.splitting import SCHEMA as SPLITS_SCHEMA
from calotype.errors import DataError


def manifest(rows: int = 4, **columns: list[Any]) -> pl.DataFrame:
    good = {
        "image_id": [f"{number:064x}" for number in range(rows)],
        "path": [f"cat/{number}.png" for number in range(rows)],
        "label": ["cat"] * rows,
        "group": [None] * rows,
        "declared_split": ["train", None] * (rows // 2),
        "width": [8] * rows,
        "height": [8] * rows,
        "mode": ["L"] * rows,
        "format": ["PNG"] * rows,
        "bytes": [100] * rows,
        "drop": [1] * rows,
        "shard": ["shard-00001-00000.parquet"] * rows,
        "phash": [2**64 - 1] * rows,
        "twins": [[], ["0" * 64]] * (rows // 2),
        "attributes": ['{"scanner": "two\\nlines"}', None] * (rows // 2),
    }
    return pl.DataFrame(good | columns, schema=MANIFEST_SCHEMA)


def predictions(**columns: Any) -> pl.DataFrame:
    good = {
        "image_id": ["0" * 64, "1" * 64],
        "path": ["a.png", "b.png"],
        "label": ["cat", "dog"],
        "predicted": ["cat", "cat"],
        "confidence": pl.Series([0.75, 0.5], dtype=pl.Float32),
        "abstained": [False, True],
        "probabilities": pl.Series([[0.75, 0.25], [0.5, 0.5]], dtype=pl.List(pl.Float32)),
    }
    return pl.DataFrame(good | columns)


def rejects(code: str = "corrupt") -> pl.DataFrame:
    return pl.DataFrame([("a.png", code, "why")], schema=REJECTS_SCHEMA, orient="row")


def splits(split: str | None = "train", status: str | None = "kept") -> pl.DataFrame:
    return pl.DataFrame([("0" * 64, split, None, status)], schema=SPLITS_SCHEMA, orient="row")


def failure(name: str, frame: pl.DataFrame) -> str:
    with pytest.raises(DataError) as caught:
        validate(name, frame)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("manifest", manifest()),
        ("manifest", manifest(0)),
        ("rejects", rejects()),
        ("rejects", rejects().clear()),
        ("splits", splits()),
        ("splits", splits(None, "bridge")),
        ("predictions", predictions()),
        ("predictions", predictions(confidence=[0.75, 0.5])),
    ],
)
def test_a_good_table_passes_unchanged(name: str, frame: pl.DataFrame) -> None:
    assert validate(name, frame) is frame


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("image_id", ["0" * 64, "0" * 64, "2" * 64, "3" * 64]),
        ("image_id", ["xyz", "1" * 64, "2" * 64, "3" * 64]),
        ("path", ["a", "a", "b", "c"]),
        ("label", ["", "cat", "cat", "cat"]),
        ("label", [None, "cat", "cat", "cat"]),
        ("declared_split", ["testing", None, None, None]),
        ("width", [0, 1, 1, 1]),
        ("height", [-1, 1, 1, 1]),
        ("mode", [None, "L", "L", "L"]),
        ("format", ["EPS", "PNG", "PNG", "PNG"]),
        ("bytes", [0, 1, 1, 1]),
        ("drop", [0, 1, 1, 1]),
        ("shard", ["../../x", *["shard-00001-00000.parquet"] * 3]),
        ("phash", [None, 1, 2, 3]),
        ("twins", [None, [], [], []]),
        ("attributes", ["scanner", None, None, None]),
    ],
)
def test_each_column_of_the_manifest_is_guarded(column: str, values: list[Any]) -> None:
    assert f"  {column}: " in failure("manifest", manifest(**{column: values}))


@pytest.mark.parametrize(
    ("name", "frame", "column"),
    [
        ("rejects", rejects("bad-luck"), "code"),
        ("splits", splits("validation"), "split"),
        ("splits", splits("train", "lost"), "status"),
        ("splits", splits("train", None), "status"),
        ("predictions", predictions(confidence=[1.5, 0.5]), "confidence"),
        ("predictions", predictions(probabilities=[[0.5, 0.4], [0.5, 0.5]]), "probabilities"),
        ("predictions", predictions(probabilities=[[1.5, -0.5], [0.5, 0.5]]), "probabilities"),
        ("predictions", predictions(probabilities=[[float("nan"), 0.5], [0.5, 0.5]]), "probabilities"),
        ("predictions", predictions(label=[1, 2]), "label"),
    ],
)
def test_each_other_table_is_guarded(name: str, frame: pl.DataFrame, column: str) -> None:
    assert f"  {column}: " in failure(name, frame)


def test_missing_and_surplus_columns_are_named() -> None:
    text = failure("splits", splits().drop("group").with_columns(extra=pl.lit(1)))
    assert "group" in text
    assert "extra" in text


def test_a_summary_counts_and_gives_three_examples() -> None:
    text = failure("manifest", manifest(6, width=[0, -1, -2, -3, -4, 1], bytes=[0, 1, 1, 1, 1, 1]))
    assert "manifest: the table of 6 rows" in text
    assert "width: greater_than_or_equal_to(1): 5 ×, such as '0', '-1', '-2'" in text
    assert "bytes: greater_than_or_equal_to(1): 1 ×, such as '0'" in text


def test_every_failure_goes_to_the_table(tmp_path: Path) -> None:
    saved = tmp_path / "reports" / "schema_failures.parquet"
    with pytest.raises(DataError, match=r"schema_failures\.parquet"):
        validate("manifest", manifest(width=[1, 0, 1, -5]), saved)
    cases = pl.read_parquet(saved)
    assert cases.columns == ["column", "check", "failure_case", "row"]
    assert cases.select("failure_case", "row").rows() == [("0", 1), ("-5", 3)]
