"""Equal bytes are one image; a class must be there, and large enough."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from calotype.data.curation import (
    SHOWN,
    explain_classes,
    explain_two_labels,
    in_two_splits,
    keep_one_of_each,
    two_labels,
)
from calotype.data.intake import ENTRY_SCHEMA
from calotype.params import IngestParams

PARAMS = IngestParams(source="x", corrections="none", min_per_class=2, max_reject_fraction=0.1, max_megapixels=1.0)


def entries(*rows: tuple[str, str, str, str | None]) -> pl.DataFrame:
    full = [(image, path, label, None, split, None, None) for image, path, label, split in rows]
    return pl.DataFrame(full, schema=ENTRY_SCHEMA, orient="row")


NOTHING = entries()


def test_test_keeps_an_image_before_val_before_train_before_undeclared() -> None:
    order = ["test", "val", "train", None]
    for first in range(4):
        rows = [("id", f"{4 - rank}.png", "a", order[rank]) for rank in range(first, 4)]
        assert keep_one_of_each(entries(*rows), NOTHING)["declared_split"].to_list() == [order[first]]


def test_of_equal_splits_the_first_path_keeps_the_image() -> None:
    kept = keep_one_of_each(entries(("id", "b.png", "a", None), ("id", "a.png", "a", None)), NOTHING)
    assert kept["path"].to_list() == ["a.png"]


def test_a_new_copy_does_not_replace_the_file_kept_so_far_unless_it_is_held_out() -> None:
    stored = entries(("id", "b.png", "a", "train"))
    copies = [("id", "a.png", "a", "train"), ("id", "b.png", "a", "train")]
    assert keep_one_of_each(entries(*copies), stored)["path"].to_list() == ["b.png"]
    held_out = ("id", "c.png", "a", "test")
    assert keep_one_of_each(entries(*copies, held_out), stored)["path"].to_list() == ["c.png"]


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([None, "train", "val", "test"])), max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_order_of_files_does_not_decide(rows: list[tuple[str, str | None]], random: object) -> None:
    full = [(image, f"{number}.png", "a", split) for number, (image, split) in enumerate(rows)]
    shuffled = list(full)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    kept = keep_one_of_each(entries(*full), NOTHING)
    assert kept.equals(keep_one_of_each(entries(*shuffled), NOTHING))
    assert kept["image_id"].to_list() == sorted({image for image, _ in rows})


def test_two_labels_of_one_image_are_listed_with_their_files() -> None:
    conflicts = two_labels(
        entries(("x", "cat/1.png", "cat", None), ("x", "dog/1.png", "dog", None), ("y", "cat/2.png", "cat", None))
    )
    assert conflicts["path"].to_list() == ["cat/1.png", "dog/1.png"]
    text = explain_two_labels(conflicts, "reports/label_conflicts.csv")
    assert "cat/1.png (cat) = dog/1.png (dog)" in text
    assert "reports/label_conflicts.csv" in text


def test_many_conflicts_are_counted() -> None:
    rows = [(f"{n:02}", f"{label}/{n}", label, None) for n in range(SHOWN + 5) for label in ("a", "b")]
    assert "… and 5 more" in explain_two_labels(two_labels(entries(*rows)), "x.csv")


def test_an_image_in_two_declared_splits_is_found_and_one_in_two_folders_is_not() -> None:
    rows = [("x", "test/1", "a", "test"), ("x", "train/1", "a", "train"), ("y", "1", "a", None), ("y", "2", "a", "val")]
    assert in_two_splits(entries(*rows))["path"].to_list() == ["test/1", "train/1"]


def problems(labels: dict[str, int], empty: tuple[str, ...] = (), rejected: dict[str, int] | None = None) -> str:
    kept = pl.DataFrame({"label": [label for label, count in labels.items() for _ in range(count)]})
    return "\n".join(explain_classes(kept.cast(pl.String), empty, rejected or {}, PARAMS))


def test_good_classes_have_no_problem() -> None:
    assert problems({"a": 2, "b": 2}) == ""


def test_an_empty_class_is_named() -> None:
    assert problems({"a": 2, "b": 2}, ("c",)) == (
        "ingest: 1 class without images: c. Add images, or remove the empty folder."
    )


def test_a_small_class_is_named_with_its_counts() -> None:
    text = problems({"a": 2, "b": 1}, rejected={"b": 4, "c": 3})
    assert "2 classes with fewer than 2 different readable images" in text
    assert "1 class with fewer" in problems({"a": 2, "b": 1})
    assert "b (1, and 4 rejected), c (0, and 3 rejected)" in text


def test_a_single_class_and_none_are_refused() -> None:
    assert "a single class, 'a'" in problems({"a": 9})
    assert "no image at all" in problems({})


def test_all_problems_come_at_once() -> None:
    assert problems({"a": 1}, ("b", "c")).count("ingest:") == 2
