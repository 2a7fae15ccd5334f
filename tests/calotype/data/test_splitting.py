"""Splits depend on an image, its group and the salt, and on nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.data.splitting import assign, count, explain_shares, point, read_splits, require_every_class
from calotype.errors import DataError
from calotype.params import SplitParams

PARAMS = SplitParams(val=0.1, test=0.2, salt="calotype", on_leak="move")
SCHEMA = {"image_id": pl.String, "label": pl.String, "group": pl.String, "declared_split": pl.String}

Row = tuple[str, str, str | None, str | None]

numbers = st.lists(st.integers(0, 10_000), unique=True, min_size=1, max_size=60)
groups = st.sampled_from([None, "a", "b", "c"])
splits = st.sampled_from([None, "train", "val", "test"])


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def manifest(rows: list[Row]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.with_columns(pl.lit(1, pl.Int32).alias("drop"), pl.lit([], pl.List(pl.String)).alias("twins"))


def plain(count: int, label: str = "a", declared: str | None = None, start: int = 0) -> list[Row]:
    return [(image_id(number), label, None, declared) for number in range(start, start + count)]


def by_id(frame: pl.DataFrame) -> dict[str, str]:
    return dict(frame.select("image_id", "split").iter_rows())


@given(numbers, st.data())
def test_adding_images_never_moves_an_existing_one(chosen: list[int], draw: st.DataObject) -> None:
    rows: list[Row] = [(image_id(number), "a", draw.draw(groups), None) for number in chosen]
    few = by_id(assign(manifest(rows[: len(rows) // 2]), PARAMS))
    assert few.items() <= by_id(assign(manifest(rows), PARAMS)).items()


@given(numbers, st.randoms(use_true_random=False), st.data())
def test_the_order_of_files_changes_nothing(chosen: list[int], random: object, draw: st.DataObject) -> None:
    rows: list[Row] = [(image_id(number), "a", draw.draw(groups), draw.draw(splits)) for number in chosen]
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign(manifest(rows), PARAMS).equals(assign(manifest(shuffled), PARAMS))


@given(numbers, st.data())
def test_a_group_stays_together(chosen: list[int], draw: st.DataObject) -> None:
    assigned = assign(manifest([(image_id(n), "a", draw.draw(groups), None) for n in chosen]), PARAMS)
    per_group = assigned.drop_nulls("group").group_by("group").agg(pl.col("split").n_unique())
    assert set(per_group["split"]) <= {1}


@given(numbers, st.data())
def test_declared_val_and_test_are_kept(chosen: list[int], draw: st.DataObject) -> None:
    frame = manifest([(image_id(number), "a", None, draw.draw(splits)) for number in chosen])
    both = frame.join(assign(frame, PARAMS), on="image_id")
    held_out = both.filter(pl.col("declared_split").is_in(["val", "test"]))
    assert held_out["split"].equals(held_out["declared_split"].rename("split"))


def test_three_declared_splits_are_kept_whole() -> None:
    rows = plain(300, declared="train") + plain(30, declared="val", start=500) + plain(30, declared="test", start=600)
    assigned = assign(manifest(rows), PARAMS)
    assert dict(assigned["split"].value_counts().iter_rows()) == {"train": 300, "val": 30, "test": 30}


@pytest.mark.parametrize("declared", ["val", "test"])
def test_a_missing_set_is_cut_from_train_by_the_same_points(declared: str) -> None:
    missing = {"val": "test", "test": "val"}[declared]
    train = plain(2000, declared="train")
    cut = by_id(assign(manifest(train + plain(50, declared=declared, start=5000)), PARAMS))
    free = by_id(assign(manifest(plain(2000)), PARAMS))
    train_ids = [row[0] for row in train]
    assert {i for i in train_ids if cut[i] == missing} == {i for i in train_ids if free[i] == missing}
    assert all(cut[i] == "train" for i in train_ids if free[i] == declared)


def test_train_alone_is_cut_like_undeclared_images() -> None:
    assert assign(manifest(plain(500, declared="train")), PARAMS).equals(assign(manifest(plain(500)), PARAMS))


def test_fractions_are_met() -> None:
    assigned = assign(manifest(plain(20_000)), PARAMS)
    share = {name: value / 20_000 for name, value in assigned["split"].value_counts().iter_rows()}
    assert share == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.01)


def few_groups() -> pl.DataFrame:
    """A hundred images in three groups: no salt can send a tenth of them to validation."""
    sizes = {"a": 60, "b": 30, "c": 10}
    names = [name for name, size in sizes.items() for _ in range(size)]
    return manifest([(image_id(number), "a", name, None) for number, name in enumerate(names)])


def test_shares_far_from_those_asked_are_said_with_the_reason() -> None:
    frame = few_groups()
    splits = assign(frame, PARAMS).with_columns(
        pl.col("group").replace({"a": "train", "b": "test", "c": "train"}).alias("split")
    )
    assert explain_shares(frame, splits, PARAMS) == (
        "shares more than 5 points from those asked: train 70 % (asked 70 %), val 0 % (asked 10 %), test 30 % "
        "(asked 20 %). A group goes to one split as a whole: 3 groups, the largest with 60 % of the images; images in "
        "no group: 0. More groups even out; before the first training, another `split.salt` may too"
    )


def test_shares_near_those_asked_are_no_matter() -> None:
    frame = manifest(plain(2000))
    assert explain_shares(frame, assign(frame, PARAMS), PARAMS) is None


def test_declared_splits_are_what_is_asked() -> None:
    rows = plain(60, declared="train") + plain(20, declared="val", start=500) + plain(20, declared="test", start=600)
    frame = manifest(rows)
    assert explain_shares(frame, assign(frame, PARAMS), PARAMS) is None
    cut = manifest(plain(2000, declared="train") + plain(2000, declared="test", start=3000))
    assert explain_shares(cut, assign(cut, PARAMS), PARAMS) is None


def test_few_images_without_a_group_are_said_to_be_few() -> None:
    frame = manifest(plain(10))
    splits = assign(frame, PARAMS).with_columns(pl.lit("train").alias("split"))
    assert "Each of the 10 images was drawn by itself" in str(explain_shares(frame, splits, PARAMS))


def test_points_are_those_of_the_formula() -> None:
    for key in ("leaf-7", image_id(2)):
        expected = int.from_bytes(hashlib.sha256(f"calotype\n{key}".encode()).digest()[:8], "big") / 2**64
        assert point(hashlib.sha256(b"calotype\n"), key) == pytest.approx(expected, abs=1e-15)


def test_a_group_draws_by_its_name_and_an_image_by_its_id() -> None:
    for number in range(2, 42):
        grouped = manifest([(image_id(1), "a", f"leaf-{number}", None), (image_id(number), "a", None, None)])
        drawn = by_id(assign(grouped, PARAMS))
        for key, name in ((f"leaf-{number}", image_id(1)), (image_id(number), image_id(number))):
            u = point(hashlib.sha256(b"calotype\n"), key)
            assert drawn[name] == ("test" if u < 0.2 else "val" if u < 0.3 else "train")


def test_another_salt_gives_another_split() -> None:
    frame = manifest(plain(200))
    assert not assign(frame, PARAMS).equals(assign(frame, PARAMS.model_copy(update={"salt": "other"})))


def test_permuting_the_classes_permutes_the_counts_alone() -> None:
    frame = manifest(plain(300) + plain(200, label="b", start=1000))
    swapped = frame.with_columns(pl.col("label").replace({"a": "b", "b": "a"}))
    counts, other = (count(f, assign(f, PARAMS)) for f in (frame, swapped))
    assert counts.sort("train").drop("label").equals(other.sort("train").drop("label"))
    assert counts["label"].to_list() == ["a", "b"]
    assert counts.select(pl.sum_horizontal("train", "val", "test"))["train"].to_list() == [300, 200]


def test_a_class_that_a_split_lacks_is_named_with_a_salt_that_works() -> None:
    frame = manifest(plain(200) + plain(8, label="rare", start=1000))
    salts = (f"salt{number}" for number in range(100))
    params = next(p for p in (PARAMS.model_copy(update={"salt": s}) for s in salts) if lacks(frame, p))
    with pytest.raises(DataError, match=r"1 of 2 classes is missing from a split(.|\n)*rare: train \d") as caught:
        require_every_class(count(frame, assign(frame, params)), frame, params)
    advised = str(caught.value).partition("`split.salt: ")[2].partition("`")[0]
    assert not lacks(frame, params.model_copy(update={"salt": advised}))


def test_declared_splits_that_lack_a_class_are_told_so() -> None:
    rows = [*plain(50, declared="train"), *plain(5, "a", "test", 100), *plain(5, "a", "val", 200)]
    rows += plain(50, "b", "train", 300) + plain(5, "b", "val", 400)
    frame = manifest(rows)
    with pytest.raises(DataError, match=r"source's own splits must hold every class(.|\n)*b: train 50, val 5, test 0"):
        require_every_class(count(frame, assign(frame, PARAMS)), frame, PARAMS)


def test_many_lacking_classes_are_counted_rather_than_all_listed() -> None:
    frame = manifest([row for number in range(30) for row in plain(1, f"class{number:02}", start=number)])
    with pytest.raises(DataError, match=r"30 of 30 classes(.|\n)*… and 20 more"):
        require_every_class(count(frame, assign(frame, PARAMS)), frame, PARAMS)


def test_a_missing_splits_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro split"):
        read_splits(tmp_path / "splits.parquet")


def test_a_splits_file_that_is_no_table_says_so(tmp_path: Path) -> None:
    (tmp_path / "splits.parquet").write_text("no table")
    with pytest.raises(DataError, match="not a Parquet table"):
        read_splits(tmp_path / "splits.parquet")


@settings(max_examples=20)
@given(st.floats(0.01, 0.45), st.floats(0.01, 0.45), numbers)
def test_a_larger_test_fraction_keeps_every_test_image(small: float, large: float, chosen: list[int]) -> None:
    small, large = sorted((small, large))
    frame = manifest([(image_id(number), "a", None, None) for number in chosen])
    few, many = (by_id(assign(frame, PARAMS.model_copy(update={"test": t}))) for t in (small, large))
    assert {i for i in few if few[i] == "test"} <= {i for i in many if many[i] == "test"}


def lacks(frame: pl.DataFrame, params: SplitParams) -> bool:
    return bool(count(frame, assign(frame, params)).select(pl.min_horizontal("train", "val", "test").min()).item() == 0)
