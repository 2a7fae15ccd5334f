"""Which images a page shows side by side."""

from __future__ import annotations

import polars as pl

from calotype.data.relatives import twins, with_status


def rows(*images: tuple[str, str, str | None, str, list[str], str | None]) -> pl.DataFrame:
    schema = {
        "image_id": pl.String,
        "label": pl.String,
        "split": pl.String,
        "status": pl.String,
        "twins": pl.List(pl.String),
        "group": pl.String,
    }
    return pl.DataFrame(images, schema=schema, orient="row")


def test_the_first_that_arrived_stands_first_among_its_twins() -> None:
    found = twins(
        rows(
            ("a", "cat", "train", "kept", [], None),
            ("b", "cat", "train", "kept", ["d"], None),
            ("c", "cat", "train", "kept", ["d"], None),
            ("d", "cat", "train", "kept", [], None),
        ),
        families=5,
        others=5,
    )
    assert (found.groups, found.images, found.disagreeing) == (1, 3, 0)
    assert found.families[0].members == ("d", "b", "c")


def test_twins_with_different_labels_come_first_and_show_the_label_that_differs() -> None:
    large = [(f"a{number}", "cat", "train", "kept", ["a"], None) for number in range(9)]
    mixed = [("k1", "cat", "test", "kept", ["k"], None), ("k2", "dog", "test", "kept", ["k"], None)]
    found = twins(
        rows(("a", "cat", "train", "kept", [], None), ("k", "cat", "test", "kept", [], None), *large, *mixed),
        families=1,
        others=1,
    )
    assert (found.groups, found.disagreeing) == (2, 1)
    assert [(family.members, family.more, family.labels_differ) for family in found.families] == [
        (("k", "k2"), 1, True)
    ]


def test_an_image_whose_leader_left_the_source_is_shown_without_it() -> None:
    found = twins(rows(("b", "cat", "train", "kept", ["gone"], None)), families=5, others=5)
    assert (found.groups, found.families) == (0, ())


def test_a_leak_stands_beside_the_image_of_the_other_split_first() -> None:
    table = rows(
        ("a", "cat", "train", "kept", [], "g"),
        ("b", "cat", "train", "leak", ["t"], "g"),
        ("t", "cat", "test", "kept", [], None),
        ("z", "cat", "val", "kept", ["b"], None),
    )
    assert [family.members for family in with_status(table, "leak", families=3, others=3)] == [("b", "t", "z", "a")]


def test_two_leaks_of_one_another_are_shown_once() -> None:
    table = rows(("a", "cat", "train", "leak", ["b"], None), ("b", "cat", "test", "leak", [], None))
    assert [family.members for family in with_status(table, "leak", families=3, others=3)] == [("a", "b")]


def test_a_leak_stands_beside_one_that_resembles_the_same_image_which_left() -> None:
    table = rows(("a", "cat", "train", "leak", ["gone"], None), ("b", "cat", "test", "kept", ["gone"], None))
    assert [family.members for family in with_status(table, "leak", families=3, others=3)] == [("a", "b")]


def test_a_bridge_stands_beside_all_that_it_joins_though_it_is_in_no_split() -> None:
    table = rows(
        ("a", "cat", "train", "kept", [], None),
        ("b", "cat", "test", "kept", [], None),
        ("x", "cat", None, "bridge", ["a", "b"], None),
    )
    assert [family.members for family in with_status(table, "bridge", families=3, others=3)] == [("x", "a", "b")]


def test_a_moved_image_without_relatives_left_is_still_shown() -> None:
    table = rows(("a", "cat", "val", "moved", ["gone"], None))
    assert [family.members for family in with_status(table, "moved", families=3, others=3)] == [("a",)]
