"""Look at a source: classes, counts, and from a sample of its images their sizes and colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image

from calotype.data.decode import DecodeError, decode
from calotype.errors import DataError
from calotype.sources.contract import Images, Source, SourceImage

SAMPLE = 300
SAMPLE_PIXELS = 200e6
"""The look ends after so many images or pixels: counted, not timed, so that two looks see the same."""

GREY_TOLERANCE = 6
"""Largest difference between the channels of a grey picture: JPEG rounds."""


@dataclass(frozen=True)
class Facts:
    """What a look at a source found.

    Attributes
    ----------
    kind
        The source's kind.
    classes
        Images of each class, sorted by name.
    splits
        Images of each declared split; the key None counts those without.
    sizes
        Width and height of each image looked at.
    is_grey
        Whether every image looked at is grey.
    unreadable
        How many of those looked at cannot be decoded, and why the first cannot.
    """

    kind: str
    classes: dict[str, int]
    splits: dict[str | None, int]
    sizes: tuple[tuple[int, int], ...]
    is_grey: bool
    unreadable: tuple[int, str]
    ignored: dict[str, int]
    empty_classes: tuple[str, ...]

    @property
    def count(self) -> int:
        return sum(self.classes.values())

    @property
    def side(self) -> float:
        """Median of the shorter sides, in pixels."""
        return median(min(size) for size in self.sizes)

    @property
    def is_one_shape(self) -> bool:
        """Whether width to height is the same, within a tenth, for nine images in ten."""
        ratios = sorted(width / height for width, height in self.sizes)
        low, high = ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]
        return high <= 1.1 * low


def look(source: Source, *, max_megapixels: float) -> Facts:
    """Count a source's images and decode a sample of them, spread evenly over the source.

    Raises
    ------
    DataError
        If it has fewer than two classes, or if no image of the sample can be decoded.
    """
    classes = Counter(image.label for image in source.images)
    if len(classes) < 2:
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in sorted(source.ignored.items()))
        raise DataError(
            f"one class ({', '.join(classes) or 'none'}); expected at least two"
            f"{f' (left out: {left_out})' if left_out else ''}. Add images of another class."
        )
    pictures: list[tuple[tuple[int, int], bool]] = []
    failures: list[str] = []
    for image, data, reason in source.read(_spread(source.images)):
        try:
            if data is None:
                raise DecodeError("unreadable", reason)
            picture = decode(data, max_megapixels=max_megapixels)
            pictures.append((picture.size, _is_grey(picture)))
        except DecodeError as error:
            failures.append(f"{image.path}: {error.reason}")
        if sum(width * height for (width, height), _ in pictures) > SAMPLE_PIXELS:
            break
    if not pictures:
        raise DataError(f"none of the {len(failures)} images looked at can be decoded; {failures[0]}. Mend the source.")
    return Facts(
        kind=source.kind,
        classes=dict(sorted(classes.items())),
        splits=dict(Counter(image.split for image in source.images)),
        sizes=tuple(size for size, _ in pictures),
        is_grey=all(grey for _, grey in pictures),
        unreadable=(len(failures), failures[0] if failures else ""),
        ignored=source.ignored,
        empty_classes=source.empty_classes,
    )


def _spread(images: tuple[SourceImage, ...] | Images) -> list[SourceImage]:
    count = min(SAMPLE, len(images))
    return [images[index * len(images) // count] for index in range(count)]


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode == "L":
        return True
    pixels = np.asarray(picture).astype(np.int16)
    return bool((pixels.max(axis=2) - pixels.min(axis=2)).max() <= GREY_TOLERANCE)


def describe(facts: Facts) -> Iterator[tuple[str, str]]:
    """Say what was seen, one pair of words and value a line."""
    yield (
        "kind",
        KINDS.get(facts.kind.rpartition(":")[2], facts.kind)
        + (f" in a {facts.kind.partition(':')[0]}" if ":" in facts.kind else ""),
    )
    names = list(facts.classes)
    yield "classes", f"{len(names)}: " + ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    low, high = min(facts.classes.values()), max(facts.classes.values())
    yield "images", f"{facts.count:,}, {low:,}" + (f" to {high:,}" if high > low else "") + " of a class"
    declared = [f"{split} {facts.splits[split]:,}" for split in ("train", "val", "test") if split in facts.splits]
    yield "splits", ", ".join(declared) + " declared" if declared else "none declared"
    yield "sizes", _sizes(facts.sizes)
    yield "colour", "grey" if facts.is_grey else "colour"
    if facts.ignored:
        yield "left out", ", ".join(f"{count:,} {reason}" for reason, count in sorted(facts.ignored.items()))
    if facts.unreadable[0]:
        yield "unreadable", f"{facts.unreadable[0]} of those looked at, first {facts.unreadable[1]}"
    if facts.empty_classes:
        empty = ", ".join(repr(name) for name in facts.empty_classes[:12])
        yield "empty", f"class folders {empty} hold no image: ingest will refuse; fill or remove them"


KINDS = {
    "folder": "a folder per class",
    "split-folders": "splits over a folder per class",
    "table": "table",
    "idx": "IDX files",
}


def _sizes(sizes: tuple[tuple[int, int], ...]) -> str:
    low, high = min(sizes, key=lambda size: size[0] * size[1]), max(sizes, key=lambda size: size[0] * size[1])
    text = f"{low[0]}×{low[1]}" + (f" to {high[0]}×{high[1]}" if len(set(sizes)) > 1 else "")
    return f"{text} pixels ({len(sizes)} images looked at)"
