"""Which images belong side by side: near-duplicates, and images whose split is not what it might have been.

Pure rules on one table, ``rows``: the manifest (image_id, label, group, declared_split, twins, …) joined with the
splits (split, status). What is shown of many is a sample: the smallest image_ids, which are as good as random.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Family:
    """An image and those that it resembles or shares a group with; ``more`` are not among ``others``."""

    image_id: str
    others: tuple[str, ...]
    more: int
    labels_differ: bool = False

    @property
    def members(self) -> tuple[str, ...]:
        return (self.image_id, *self.others)


@dataclass(frozen=True)
class Twins:
    """Near-duplicates in figures, and the families to show."""

    groups: int
    images: int
    disagreeing: int
    families: tuple[Family, ...]


def twins(rows: pl.DataFrame, *, families: int, others: int) -> Twins:
    """Gather near-duplicates: families whose labels differ first, then the largest.

    Parameters
    ----------
    rows
        Columns image_id, label, twins.
    families
        How many to show at most.
    others
        How many images to show beside the first of each.
    """
    pairs = _pairs(rows)
    labels = rows.select("image_id", "label")
    told = pairs.join(labels, on="image_id").join(labels, left_on="leader", right_on="image_id", suffix="_of_leader")
    differ = pl.col("label").ne(pl.col("label_of_leader"))
    gathered = (
        told.sort(~differ, "image_id")
        .group_by("leader", maintain_order=True)
        .agg(pl.col("image_id"), differ.any().alias("differ"))
        .sort(~pl.col("differ"), -pl.col("image_id").list.len().cast(pl.Int64), "leader")
    )
    shown = tuple(
        Family(leader, tuple(members[:others]), len(members[others:]), is_mixed)
        for leader, members, is_mixed in gathered.head(families).iter_rows()
    )
    images = pl.concat([pairs["image_id"], pairs["leader"]]).n_unique()
    return Twins(gathered.height, images, int(gathered["differ"].sum()), shown)


def with_status(rows: pl.DataFrame, status: str, *, families: int, others: int) -> tuple[Family, ...]:
    """Gather images of a status (moved, bridge, leak), each with relatives; those in another split come first.

    Relatives are the images that it resembles, those that resemble it, those that resemble the same earlier image
    (which may have left the source), and those of its group in the source.
    """
    # More than are shown: some will turn out to stand in the family of another.
    focus = rows.filter(pl.col("status") == status).sort("image_id").head(3 * families)
    pairs = _pairs(rows)
    resembled = pairs.join(focus.select("image_id"), on="image_id").select("image_id", other="leader")
    resembling = pairs.join(focus.select(leader="image_id"), on="leader").select(image_id="leader", other="image_id")
    followers = rows.select("image_id", leader="twins").explode("leader").drop_nulls()
    followed = followers.join(focus.select("image_id"), on="image_id")
    beside = followed.join(followers.select("leader", other="image_id"), on="leader").select("image_id", "other")
    grouped = focus.drop_nulls("group").select("image_id", "group")
    akin = grouped.join(rows.select("group", other="image_id"), on="group").select("image_id", "other")
    related = pl.concat([resembled, resembling, beside, akin]).filter(pl.col("image_id") != pl.col("other")).unique()
    elsewhere = pl.col("split").ne_missing(pl.col("split_of_other"))
    ordered = (
        related.join(rows.select("image_id", "split"), on="image_id")
        .join(rows.select(other="image_id", split_of_other="split"), on="other")
        .sort("image_id", ~elsewhere, "other")
        .group_by("image_id", maintain_order=True)
        .agg("other")
    )
    found = dict(focus.select("image_id").join(ordered, on="image_id", how="left", maintain_order="left").iter_rows())
    shown: list[Family] = []
    seen: set[str] = set()
    for image_id, named in found.items():
        if image_id not in seen and len(shown) < families:
            shown.append(Family(image_id, tuple((named or [])[:others]), len((named or [])[others:])))
            seen.update(shown[-1].members)
    return tuple(shown)


def _pairs(rows: pl.DataFrame) -> pl.DataFrame:
    """Each image that is a near-duplicate, with each leader that it matches: image_id, leader."""
    matched = rows.filter(pl.col("twins").list.len() > 0).select("image_id", leader="twins")
    # A leader that left the source is no picture any more.
    return matched.explode("leader").join(rows.select(leader="image_id"), on="leader", how="semi")
