"""data.html: what is in the data, what was done to it, and what a person should look at before trusting a figure.

The page stays small whatever the size of the data: it shows samples, and says of what and how many were left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from calotype import pages
from calotype.data import dataset, relatives, splitting
from calotype.data.decode import REJECTIONS
from calotype.data.relatives import Family, Twins
from calotype.files import write_text
from calotype.pages import gallery
from calotype.pages.gallery import Picture, Tile
from calotype.params import Params
from calotype.project import Project

SPLITS = ("train", "val", "test")
MOST_CLASSES = 1_000
MOST_STRIPS = 60
MOST_FAMILIES = 12
MOST_TWIN_FAMILIES = 18
MOST_OTHERS = 4
MOST_CORRECTIONS = 200
MOST_COPIES = 200
MOST_EXAMPLES = 5
MOST_BARS = 8
SAMPLES = 240
"""Pictures of all strips together: twelve of each class where there are few, four where there are many."""
SIDE = 128
MOST_PICTURE_CHARACTERS = 2_000_000
CROSSINGS_SCHEMA = {"image_id": pl.String, "path": pl.String, "declared_split": pl.String}
CORRECTIONS_SCHEMA = {"image_id": pl.String, "path": pl.String, "from": pl.String, "to": pl.String}

MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "palette",
    "RGB": "colour",
    "RGBA": "colour with transparency",
    "CMYK": "CMYK colour",
}
"""Pillow's words for pixels, in a person's."""


@dataclass(frozen=True)
class Bar:
    """One bar of a small chart."""

    word: str
    count: int
    share: float


@dataclass(frozen=True)
class ClassRow:
    """Images of a class in each split; ``left_out`` are in none."""

    name: str
    train: int
    val: int
    test: int
    left_out: int

    @property
    def total(self) -> int:
        return self.train + self.val + self.test + self.left_out


@dataclass(frozen=True)
class Shown:
    """A family with its pictures."""

    words: str
    tiles: tuple[Tile, ...]
    more: int


@dataclass(frozen=True)
class Section:
    """Images of one status, or near-duplicates: how many there are, and some of them."""

    key: str
    title: str
    explanation: str
    total: int
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Rejected:
    """Files set aside for one reason."""

    code: str
    meaning: str
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Strip:
    """Some images of a class."""

    name: str
    count: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class DataPage:
    """All that the page shows, as plain values."""

    title: str
    digest: str
    counts: ClassRow
    drops: tuple[Bar, ...]
    classes: tuple[ClassRow, ...]
    class_count: int
    largest: ClassRow
    smallest: ClassRow
    declared: tuple[Bar, ...]
    groups: int
    charts: tuple[tuple[str, tuple[Bar, ...]], ...]
    bytes_total: int
    bytes_median: int
    twins: Twins
    sections: tuple[Section, ...]
    rejected: tuple[Rejected, ...]
    corrections: tuple[dict[str, str], ...]
    correction_count: int
    copies: tuple[dict[str, str], ...]
    copy_count: int
    is_refusing: bool
    shares: str | None
    strips: tuple[Strip, ...]
    without_picture: int


def write(project: Project, params: Params, manifest: pl.DataFrame, splits: pl.DataFrame) -> None:
    """Write reports/data.html.

    Parameters
    ----------
    project
        Whose data/dataset holds the images, the rejects, the corrections and the crossings.
    params
        For the name, the pixel cap and the rule for leaks.
    manifest
        The dataset's manifest.
    splits
        image_id, split, group, status, as `splitting` decided.
    """
    rejects = _table(project.dataset / dataset.REJECTS, {"path": pl.String, "code": pl.String, "reason": pl.String})
    corrections = _table(project.dataset / "corrections.parquet", CORRECTIONS_SCHEMA)
    crossings = _table(project.dataset / dataset.CROSSINGS, CROSSINGS_SCHEMA)
    page = build(project, params, manifest, splits, rejects, corrections, crossings)
    write_text(project.reports / "data.html", pages.render("data.html.j2", page=page))


def build(
    project: Project,
    params: Params,
    manifest: pl.DataFrame,
    splits: pl.DataFrame,
    rejects: pl.DataFrame,
    corrections: pl.DataFrame,
    crossings: pl.DataFrame,
) -> DataPage:
    """Gather what the page shows; pictures are read from data/dataset."""
    rows = manifest.join(splits.select("image_id", "split", "status"), on="image_id", how="left")
    classes = _classes(rows)
    families = {
        status: relatives.with_status(rows, status, families=MOST_FAMILIES, others=MOST_OTHERS) for status in _EXPLAINED
    }
    copies = splitting.find_copies(manifest, crossings)
    twins = relatives.twins(rows, families=MOST_TWIN_FAMILIES, others=MOST_OTHERS)
    samples = _samples(rows, classes)
    wanted = _wanted([*families.values(), twins.families], samples)
    drawn = gallery.pictures(
        project.dataset,
        wanted,
        max_megapixels=params.ingest.max_megapixels,
        side=SIDE,
        most_characters=MOST_PICTURE_CHARACTERS,
    )
    facts = _facts_of(rows, wanted)
    return DataPage(
        title=params.name,
        digest=dataset.digest(project.dataset),
        counts=_sum(classes),
        drops=_bars(rows["drop"].cast(pl.String), most=rows["drop"].n_unique(), by_name=True),
        classes=_some_classes(classes),
        class_count=len(classes),
        largest=max(classes, key=lambda row: row.total),
        smallest=min(classes, key=lambda row: row.total),
        declared=_bars(rows["declared_split"].drop_nulls()),
        groups=rows["group"].drop_nulls().n_unique(),
        charts=_charts(rows),
        bytes_total=int(rows["bytes"].sum()),
        bytes_median=int(rows["bytes"].median() or 0),  # type: ignore[arg-type]
        twins=twins,
        sections=tuple(_sections(rows, families, twins, facts, drawn)),
        rejected=tuple(_rejected(rejects)),
        corrections=tuple(corrections.head(MOST_CORRECTIONS).iter_rows(named=True)),
        correction_count=corrections.height,
        copies=tuple(copies.head(MOST_COPIES).iter_rows(named=True)),
        copy_count=copies.height,
        shares=splitting.explain_shares(manifest, splits, params.split),
        is_refusing=params.split.on_leak == "error",
        strips=tuple(_strips(samples, facts, drawn)),
        without_picture=len(wanted) - len(drawn),
    )


_EXPLAINED = {
    "leak": (
        "Leaks between splits",
        "Each of these images has a near-duplicate, or an image of its own group, in another split: the source "
        "declares it so. A figure on the test split is too good by them; split.on_leak: move brings them together.",
    ),
    "bridge": (
        "Left out: bridges between splits",
        "Each of these images resembles images, or belongs to groups, of different splits. In any split it would "
        "leak, so it is in none.",
    ),
    "moved": (
        "Moved to another split",
        "The source declares another split for these images; they follow their near-duplicates, or their group.",
    ),
}


def _classes(rows: pl.DataFrame) -> list[ClassRow]:
    counted = (
        rows.group_by("label")
        .agg(
            *(pl.col("split").eq(name).sum().alias(name) for name in SPLITS),
            pl.col("split").is_null().sum().alias("left_out"),
        )
        .sort("label")
    )
    return [ClassRow(*values) for values in counted.iter_rows()]


def _sum(classes: Sequence[ClassRow]) -> ClassRow:
    return ClassRow("", *(sum(getattr(row, name) for row in classes) for name in (*SPLITS, "left_out")))


def _some_classes(classes: list[ClassRow]) -> tuple[ClassRow, ...]:
    """All classes, or as many of the largest as of the smallest, in order of the names."""
    if len(classes) <= MOST_CLASSES:
        return tuple(classes)
    by_size = sorted(classes, key=lambda row: (row.total, row.name))
    kept = [*by_size[: MOST_CLASSES // 2], *by_size[-MOST_CLASSES // 2 :]]
    return tuple(sorted(kept, key=lambda row: row.name))


def _charts(rows: pl.DataFrame) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    width, height = pl.col("width"), pl.col("height")
    shape = pl.when(width > height).then(pl.lit("wide")).when(width < height).then(pl.lit("tall"))
    sizes = rows.select(pl.format("{} × {}", "width", "height")).to_series()
    if sizes.n_unique() > MOST_BARS:
        charts = [("Longer side, in pixels", _size_classes(rows))]
    else:
        charts = [("Size, in pixels", _bars(sizes))]
    charts += [
        ("Shape", _bars(rows.select(shape.otherwise(pl.lit("square"))).to_series())),
        ("Format", _bars(rows["format"])),
        ("Pixels", _bars(rows["mode"].replace(MODES))),
    ]
    return tuple(charts)


def _size_classes(rows: pl.DataFrame) -> tuple[Bar, ...]:
    """Images by their longer side, in steps of a power of two."""
    longer = pl.max_horizontal("width", "height")
    counted = rows.select(longer.log(2).floor().cast(pl.Int64).alias("step")).group_by("step").len().sort("step")
    return tuple(
        Bar(f"{2**step:,} – {2 ** (step + 1) - 1:,}", count, count / rows.height) for step, count in counted.iter_rows()
    )


def _bars(values: pl.Series, *, most: int = MOST_BARS, by_name: bool = False) -> tuple[Bar, ...]:
    """Count equal values, most frequent first; what is beyond ``most`` becomes one bar."""
    counted = values.rename("word").value_counts()
    # Drops are numbers: the shorter name is the smaller number.
    order = counted.sort(pl.col("word").str.len_bytes(), "word") if by_name else None
    counted = order if order is not None else counted.sort(-pl.col("count").cast(pl.Int64), "word")
    bars = [Bar(word, count, count / len(values)) for word, count in counted.head(most).iter_rows()]
    rest = sum(count for _, count in counted.tail(-most).iter_rows()) if counted.height > most else 0
    return (*bars, Bar("others", rest, rest / len(values))) if rest else tuple(bars)


def _samples(rows: pl.DataFrame, classes: list[ClassRow]) -> dict[str, list[str]]:
    """Some images of each class, or of classes evenly spread over the names: the smallest image_ids of each."""
    shown = classes
    if len(classes) > MOST_STRIPS:
        shown = [classes[number * len(classes) // MOST_STRIPS] for number in range(MOST_STRIPS)]
    count = max(4, min(12, SAMPLES // len(shown)))
    names = [row.name for row in shown]
    chosen = rows.filter(pl.col("label").is_in(names)).group_by("label").agg(pl.col("image_id").bottom_k(count).sort())
    found = dict(chosen.iter_rows())
    return {name: found[name] for name in names}


def _wanted(families: Iterable[Sequence[Family]], samples: dict[str, list[str]]) -> list[str]:
    """Images to draw, the most telling first: what leaks, then duplicates, then one sample of each class, then more."""
    ids = [image_id for some in families for family in some for image_id in family.members]
    longest = max(map(len, samples.values()))
    ids += [names[place] for place in range(longest) for names in samples.values() if place < len(names)]
    return list(dict.fromkeys(ids))


def _facts_of(rows: pl.DataFrame, image_ids: Sequence[str]) -> dict[str, dict[str, str | None]]:
    few = rows.filter(pl.col("image_id").is_in(list(image_ids)))
    columns = ("image_id", "path", "label", "split", "declared_split", "group", "width", "height")
    return {row["image_id"]: row for row in few.select(columns).iter_rows(named=True)}


def _sections(
    rows: pl.DataFrame,
    families: dict[str, tuple[Family, ...]],
    twins: Twins,
    facts: dict[str, dict[str, str | None]],
    drawn: dict[str, Picture],
) -> list[Section]:
    sections = []
    for status, (title, explanation) in _EXPLAINED.items():
        total = rows.filter(pl.col("status") == status).height
        shown = tuple(_family(family, facts, drawn) for family in families[status])
        sections.append(Section(status, title, explanation, total, shown))
    shown = tuple(_family(family, facts, drawn) for family in twins.families)
    words = (
        "Pictures that are the same to the eye, though their files differ. Each group lives in one split, so that no "
        "image is tested whose twin was trained on. The first picture of a group is the first that arrived."
    )
    return [*sections, Section("twins", "Near-duplicates", words, twins.groups, shown)]


def _family(family: Family, facts: dict[str, dict[str, str | None]], drawn: dict[str, Picture]) -> Shown:
    words = "labels differ" if family.labels_differ else ""
    tiles = []
    for image_id in family.members:
        fact = facts[image_id]
        declared = fact["declared_split"]
        note = f"declared {declared}" if declared and declared != fact["split"] else ""
        tiles.append(
            Tile(
                drawn.get(image_id),
                alt=str(fact["path"]),
                title=str(fact["label"]),
                split=fact["split"] or "left out",
                note=note,
            )
        )
    return Shown(words, tuple(tiles), family.more)


def _strips(
    samples: dict[str, list[str]], facts: dict[str, dict[str, str | None]], drawn: dict[str, Picture]
) -> Iterable[Strip]:
    for name, image_ids in samples.items():
        tiles = tuple(
            Tile(drawn[image_id], alt=str(facts[image_id]["path"])) for image_id in image_ids if image_id in drawn
        )
        yield Strip(name, len(image_ids), tiles)


def _rejected(rejects: pl.DataFrame) -> Iterable[Rejected]:
    counted = rejects["code"].value_counts().sort(-pl.col("count").cast(pl.Int64), "code")
    for code, count in counted.iter_rows():
        some = rejects.filter(pl.col("code") == code).sort("path").head(MOST_EXAMPLES)
        examples = tuple(some.select("path", "reason").iter_rows())
        yield Rejected(code, REJECTIONS.get(code, ""), count, examples)


def _table(path: Path, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    return pl.read_parquet(path) if path.exists() else pl.DataFrame(schema=schema)
