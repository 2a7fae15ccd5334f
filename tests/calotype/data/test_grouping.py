"""What is tied together stays together; what is in its place stays in its place."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.data.arrivals import HISTORY_SCHEMA, departures
from calotype.data.grouping import Arrival, Placement, place
from calotype.data.splitting import assign, explain_leaks, find_leaks, settle_leaks
from calotype.params import SplitParams

OnLeak = Literal["error", "move", "keep"]
SCHEMA = {**HISTORY_SCHEMA, "path": pl.String}

groups = st.sampled_from([None, None, "a", "b", "c", "d"])
declarations = st.sampled_from([None, "train", "val", "test"])
modes = st.sampled_from(["error", "move", "keep"])


def rules(on_leak: OnLeak = "move", **more: Any) -> SplitParams:
    return SplitParams(**{"val": 0.2, "test": 0.3, "salt": "calotype", "on_leak": on_leak, **more})


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


@st.composite
def lines(draw: st.DrawFn, declared: st.SearchStrategy[str | None] = declarations) -> pl.DataFrame:
    """Images in order of arrival over several drops: each may name a group, a split, and twins among the leaders."""
    count = draw(st.integers(1, 16))
    drops = draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    arrived = sorted((drop, image_id(number)) for number, drop in enumerate(drops))
    leaders: list[str] = []
    rows = []
    for drop, name in arrived:
        twins = draw(st.lists(st.sampled_from(leaders), max_size=2, unique=True)) if leaders else []
        if not twins:
            leaders.append(name)
        rows.append((name, drop, draw(declared), draw(groups), twins, f"{name[:6]}.png"))
    return frame(rows)


def frame(rows: list[tuple[str, int, str | None, str | None, list[str], str]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def image(name: str, declared: str | None = None, group: str | None = None, *twins: str, drop: int = 1) -> Any:
    return (name, drop, declared, group, list(twins), f"{name}.png")


def outcome(rows: list[Any], on_leak: OnLeak = "move") -> dict[str, tuple[str | None, str]]:
    splits = assign(frame(rows), rules(on_leak))
    return {name: (split, status) for name, split, _, status in splits.iter_rows()}


def placed(splits: pl.DataFrame) -> dict[str, tuple[str | None, str]]:
    return {name: (split, status) for name, split, _, status in splits.iter_rows()}


def ties(images: pl.DataFrame) -> list[tuple[str, str]]:
    """Pairs of images of one group, and of images with the ones that they resemble."""
    pairs = images.explode("twins").drop_nulls("twins").select("image_id", "twins").rows()
    for members in images.drop_nulls("group").group_by("group").agg("image_id")["image_id"]:
        pairs += [(one, other) for one in members for other in members if one < other]
    return pairs


@given(lines(), modes)
def test_adding_drops_never_moves_an_image(images: pl.DataFrame, on_leak: OnLeak) -> None:
    whole = placed(assign(images, rules(on_leak)))
    for last in (1, 2):
        assert placed(assign(images.filter(pl.col("drop") <= last), rules(on_leak))).items() <= whole.items()


@given(lines())
def test_nothing_leaks_where_images_may_move(images: pl.DataFrame) -> None:
    splits = placed(assign(images, rules("move")))
    for one, other in ties(images):
        assert None in (splits[one][0], splits[other][0]) or splits[one][0] == splits[other][0]


@given(lines(), st.sampled_from(["error", "keep"]))
def test_nothing_but_what_is_marked_leaks_where_splits_are_binding(images: pl.DataFrame, on_leak: OnLeak) -> None:
    assigned = assign(images, rules(on_leak))
    splits = placed(assigned)
    leaking = {name for name, (_, status) in splits.items() if status == "leak"}
    for one, other in ties(images):
        apart = splits[one][0] != splits[other][0] and None not in (splits[one][0], splits[other][0])
        assert not apart or {one, other} & leaking
    leaks = find_leaks(images, assigned)
    assert set(leaks["image_id"]) <= leaking
    settled = settle_leaks(assigned, leaks)
    assert settled.filter(status="leak")["image_id"].to_list() == sorted(leaks["image_id"])
    assert settled.drop("status").equals(assigned.drop("status"))


@settings(max_examples=40)
@given(lines(), st.sampled_from(["error", "keep"]))
def test_a_binding_split_is_kept(images: pl.DataFrame, on_leak: OnLeak) -> None:
    both = images.join(assign(images, rules(on_leak)), on="image_id")
    held_out = both.filter(pl.col("declared_split").is_in(["val", "test"]))
    assert held_out["split"].to_list() == held_out["declared_split"].to_list()


@settings(max_examples=40)
@given(lines(), modes)
def test_every_image_has_one_row_and_only_bridges_have_no_split(images: pl.DataFrame, on_leak: OnLeak) -> None:
    splits = assign(images, rules(on_leak))
    assert splits["image_id"].to_list() == images["image_id"].sort().to_list()
    assert splits.filter(pl.col("split").is_null())["status"].unique().to_list() in ([], ["bridge"])
    assert splits.filter(status="bridge")["split"].null_count() == splits.filter(status="bridge").height
    assert (
        splits.filter(pl.col("status").is_in(["moved", "leak"]))
        .join(images.filter(pl.col("declared_split").is_null()), on="image_id", how="semi")
        .is_empty()
    )


@settings(max_examples=40)
@given(lines(), modes, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(images: pl.DataFrame, on_leak: OnLeak, random: Any) -> None:
    rows = images.rows()
    random.shuffle(rows)
    assert assign(frame(rows), rules(on_leak)).equals(assign(images, rules(on_leak)))


@given(lines(declared=st.none()), st.data())
def test_images_that_leave_never_move_those_that_stay(images: pl.DataFrame, data: st.DataObject) -> None:
    stays = pl.Series(data.draw(st.lists(st.booleans(), min_size=images.height, max_size=images.height)))
    remaining = images.filter(stays)
    departed = departures(remaining, images)
    assert not set(departed["image_id"]) & set(remaining["image_id"])
    whole = placed(assign(images, rules()))
    assert placed(assign(remaining, rules(), departed)).items() <= whole.items()


def test_a_twin_joins_the_split_of_the_image_that_it_resembles() -> None:
    leaders = [image(f"leader{number}") for number in range(30)]
    followers = [image(f"twin{number}", None, None, f"leader{number}", drop=2) for number in range(30)]
    splits = outcome(leaders + followers)
    assert {splits[f"leader{number}"] for number in range(30)} == {("train", "kept"), ("val", "kept"), ("test", "kept")}
    assert all(splits[f"twin{number}"] == splits[f"leader{number}"] for number in range(30))


def test_a_new_image_between_two_splits_is_left_out_and_the_old_ones_stay() -> None:
    leaders = [image(f"leader{number}") for number in range(30)]
    before = outcome(leaders)
    one = next(name for name, (split, _) in before.items() if split == "train")
    other = next(name for name, (split, _) in before.items() if split == "test")
    bridge = image("bridge", None, None, one, other, drop=2)
    assert outcome([*leaders, bridge]) == {**before, "bridge": (None, "bridge")}
    assert outcome([*leaders, image("between", None, None, one, drop=2)])["between"] == ("train", "kept")


def test_a_bridge_ties_nothing_together() -> None:
    leaders = [image(f"leader{number}") for number in range(30)]
    before = outcome(leaders)
    one = next(name for name, (split, _) in before.items() if split == "train")
    other = next(name for name, (split, _) in before.items() if split == "test")
    alone = outcome([image("x", None, "patient")])["x"]
    rows = [*leaders, image("bridge", None, "patient", one, other, drop=2), image("x", None, "patient", drop=3)]
    assert outcome(rows)["x"] == alone


def test_twin_and_group_in_different_splits_make_a_bridge() -> None:
    rows = [image(f"g{number}", None, f"patient{number}") for number in range(30)]
    before = outcome(rows)
    one = next(name for name, (split, _) in before.items() if split == "train")
    other = next(number for number in range(30) if before[f"g{number}"][0] == "test")
    assert outcome([*rows, image("new", None, f"patient{other}", one, drop=2)])["new"] == (None, "bridge")


DECLARED = [image("tr", "train"), image("va", "val"), image("te", "test")]


@pytest.mark.parametrize(
    ("leader", "twin", "home"), [("train", "test", "test"), ("test", "train", "test"), ("train", "val", "val")]
)
def test_move_sends_a_drop_to_the_most_protected_split(leader: str, twin: str, home: str) -> None:
    splits = outcome([*DECLARED, image("a", leader), image("b", twin, None, "a")])
    assert splits["a"] == (home, "kept" if leader == home else "moved")
    assert splits["b"] == (home, "kept" if twin == home else "moved")


def test_move_makes_a_later_image_follow_though_it_is_declared_for_the_test() -> None:
    rows = [*DECLARED, image("a", "train"), image("late", "test", None, "a", drop=2)]
    assert outcome(rows)["a"] == ("train", "kept")
    assert outcome(rows)["late"] == ("train", "moved")


def test_move_leaves_out_what_is_tied_to_two_old_groups() -> None:
    rows = [*DECLARED, image("late", "val", None, "tr", "te", drop=2)]
    assert outcome(rows)["late"] == (None, "bridge")


def test_keep_marks_the_image_of_the_less_protected_split() -> None:
    splits = outcome([*DECLARED, image("a", "train"), image("b", "test", None, "a")], "keep")
    assert (splits["a"], splits["b"]) == (("train", "leak"), ("test", "kept"))


def test_keep_leaves_out_an_undeclared_twin_of_a_leak() -> None:
    rows = [*DECLARED, image("a", "train"), image("b", "test", None, "a"), image("c", None, None, "a", drop=2)]
    assert outcome(rows, "keep")["c"] == (None, "bridge")


def test_a_group_of_the_source_across_declared_splits_is_a_leak() -> None:
    rows = [*DECLARED, image("a", "train", "patient 7"), image("b", "test", "patient 7")]
    leaks = find_leaks(frame(rows), assign(frame(rows), rules("error")))
    assert leaks.rows() == [("a", "a.png", "train", "b", "b.png", "test", "group patient 7")]
    assert "split: 1 image leaks: declared for another split" in explain_leaks(leaks, "x.csv")
    assert outcome(rows, "move")["a"] == ("test", "moved")


def test_cutting_validation_from_train_is_no_leak() -> None:
    rows = [image("t", "test"), *(image(f"p{n}", "train", f"patient{n // 3}") for n in range(90))]
    splits = outcome(rows, "error")
    assert {status for _, status in splits.values()} == {"kept"}
    assert {split for name, (split, _) in splits.items() if name != "t"} == {"train", "val"}
    assert all(len({splits[f"p{3 * patient + k}"][0] for k in range(3)}) == 1 for patient in range(30))


def test_a_test_set_that_comes_later_moves_nothing_that_was_cut_from_train() -> None:
    rows = [image(f"t{number}", "train") for number in range(30)]
    before = outcome(rows)
    assert {split for split, _ in before.values()} == {"train", "val", "test"}
    after = outcome([*rows, image("late", "test", drop=2), image("more", "train", drop=2)])
    assert before.items() <= after.items()
    assert after["late"] == ("test", "kept")


def test_an_image_whose_counterpart_left_leaks_no_more() -> None:
    train, test = image("a", "train"), image("b", "test", None, "a")
    present, departed = frame([*DECLARED, train]), frame([test])
    splits = assign(present, rules("keep"), departed)
    leaks = find_leaks(present, splits)
    assert leaks.is_empty()
    assert settle_leaks(splits, leaks).filter(image_id="a").select("split", "status").row(0) == ("train", "kept")


def test_leaks_are_listed_by_path_with_what_they_are_tied_to() -> None:
    rows = [*DECLARED, image("a", "train"), image("b", "test", None, "a"), image("c", "val", None, "a")]
    leaks = find_leaks(frame(rows), assign(frame(rows), rules("error")))
    assert leaks.select("path", "split", "other_path", "other_split", "tie").rows() == [
        ("a.png", "train", "b.png", "test", "near-duplicate"),
        ("c.png", "val", "b.png", "test", "near-duplicate"),
    ]
    text = explain_leaks(leaks, "reports/leaks.csv")
    assert "2 images leak" in text
    assert "a.png (train) ~ b.png (test): near-duplicate" in text
    assert "reports/leaks.csv" in text


def test_many_leaks_are_counted_rather_than_all_shown() -> None:
    rows = [*DECLARED]
    for number in range(14):
        rows += [image(f"a{number:02}", "train"), image(f"b{number:02}", "test", None, f"a{number:02}")]
    text = explain_leaks(find_leaks(frame(rows), assign(frame(rows), rules("error"))), "x.csv")
    assert "14 images leak" in text
    assert text.endswith("  … and 4 more")


def test_the_key_of_a_group_is_the_name_of_the_source_or_the_first_image() -> None:
    rows = [image("a"), image("b", None, None, "a"), image("c", None, "patient"), image("d", None, None, "c")]
    keys = dict(assign(frame([*rows, image("e")]), rules()).select("image_id", "group").iter_rows())
    assert keys == {"a": "a", "b": "a", "c": "patient", "d": "patient", "e": None}


def test_no_group_grows_by_chains() -> None:
    """An image is tied to what it resembles, and not to what that one's other twins resemble."""
    arrivals = [Arrival("a", 1, None, None, []), Arrival("b", 1, None, None, ["a"]), Arrival("c", 1, None, None, [])]
    drawn = list(place(arrivals, lambda key, _declared, _announced: {"a": "test", "c": "train"}[key], binding=False))
    assert Placement("b", "test", "a", "kept") in drawn
    assert Placement("c", "train", None, "kept") in drawn
