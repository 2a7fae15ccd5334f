"""IDX files of the MNIST family: images and labels of a split in one file each, possibly gzipped.

The format is described at the end of http://yann.lecun.com/exdb/mnist: two zero bytes, the type (8: unsigned byte),
the number of dimensions, the dimensions as big-endian 32-bit integers, then the data.
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from calotype.errors import DataError
from calotype.sources.contract import SPLIT_WORDS, Source, SourceImage, Tree, Unreadable
from calotype.sources.folders import wrappers
from calotype.sources.trees import level

NAME = re.compile(r"(?P<stem>.*?)[-_.]?(?P<what>images|labels)[-_.]idx\d[-_.]ubyte(\.gz)?", re.IGNORECASE)
CLASS_NAMES = "classes.txt"
MAX_BYTES = 2**30
BESIDE = "beside the IDX files"


def recognise(tree: Tree) -> Source | None:
    """Make a source of the IDX files of a tree; None if there are none.

    Raises
    ------
    DataError
        If images or labels lack their other half, or if a file is not what its header says.
    """
    for base in wrappers(tree):
        found = [path for path in level(tree, base).files if NAME.fullmatch(path[len(base) :])]
        if found:
            return _source(tree, base, found)
    return None


@dataclass(frozen=True)
class Array:
    """Unsigned bytes of an IDX file with their dimensions."""

    shape: tuple[int, ...]
    data: memoryview


@dataclass(frozen=True)
class Pair:
    """The images file and the labels file of one split."""

    tree: Tree
    images_path: str
    labels_path: str

    @cached_property
    def images(self) -> Array:
        """N×H×W grey, or N×H×W×3 colour."""
        array = read_array(self.tree, self.images_path)
        if len(array.shape) != 3 and not (len(array.shape) == 4 and array.shape[3] == 3):
            raise DataError(
                f"{self.images_path}: dimensions {array.shape}; expected images×height×width, or that ×3 for colour. "
                f"Give the images file of the set."
            )
        return array

    @cached_property
    def labels(self) -> bytes:
        array = read_array(self.tree, self.labels_path)
        if len(array.shape) != 1:
            raise DataError(
                f"{self.labels_path}: dimensions {array.shape}; expected one label per image. Give the labels file."
            )
        return bytes(array.data)

    def netpbm(self, index: int) -> bytes:
        """One image as a binary PGM or PPM file: the same pixels give the same bytes anywhere."""
        height, width = self.images.shape[1:3]
        size = math.prod(self.images.shape[1:])
        magic = "P6" if len(self.images.shape) == 4 else "P5"
        return f"{magic}\n{width} {height}\n255\n".encode() + self.images.data[index * size : (index + 1) * size]


def read_array(tree: Tree, path: str) -> Array:
    """Read one IDX file.

    Raises
    ------
    DataError
        If it cannot be read, is no IDX file of unsigned bytes, or is shorter or longer than its header says.
    """
    data = _bytes(tree, path)
    count = data[3] if len(data) > 4 else 0
    if data[:2] != b"\0\0" or data[2:3] != b"\x08" or not 1 <= count <= 4 or len(data) < 4 + 4 * count:
        raise DataError(f"{path}: not an IDX file of unsigned bytes. Fetch it again.")
    shape = tuple(int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(count))
    body = memoryview(data)[4 + 4 * count :]
    if len(body) != math.prod(shape):
        raise DataError(
            f"{path}: {len(body):,} bytes of data; expected {math.prod(shape):,} for {shape}. Fetch it again."
        )
    return Array(shape, body)


def _bytes(tree: Tree, path: str) -> bytes:
    try:
        data = tree.read(path)
    except Unreadable as error:
        raise DataError(f"{path}: cannot be read ({error}). Mend it, or fetch it again.") from error
    if not path.lower().endswith(".gz"):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            plain = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}). Fetch it again.") from error
    if len(plain) > MAX_BYTES:
        raise DataError(f"{path}: more than {MAX_BYTES // 2**20} MiB unpacked; expected a set of the MNIST family.")
    return plain


def _source(tree: Tree, base: str, found: list[str]) -> Source:
    pairs = _pairs(tree, base, found)
    names = _class_names(tree, base)
    images: list[SourceImage] = []
    where: dict[str, tuple[Pair, int]] = {}
    for key, pair in pairs.items():
        for index, label in enumerate(_labels(pair, names)):
            path = f"{key}/{index:05d}.{'ppm' if len(pair.images.shape) == 4 else 'pgm'}"
            images.append(SourceImage(path, label, SPLIT_WORDS.get(key)))
            where[path] = (pair, index)
    images.sort(key=lambda image: image.path)
    used = 2 * len(pairs) + (names is not None)
    ignored = +Counter(tree.ignored | {BESIDE: len(tree.files) - used})

    def load(image: SourceImage) -> bytes:
        pair, index = where[image.path]
        return pair.netpbm(index)

    return Source("idx", tuple(images), dict(ignored), (), load)


def _pairs(tree: Tree, base: str, found: list[str]) -> dict[str, Pair]:
    """One pair of files for each split; of a file that is there plain and gzipped, the plain one."""
    halves: dict[str, dict[str, str]] = {}
    for path in sorted(found):
        match = NAME.fullmatch(path[len(base) :])
        assert match
        half = halves.setdefault(_split_of(match["stem"]), {})
        other = half.setdefault(match["what"].lower(), path)
        if other.removesuffix(".gz") != path.removesuffix(".gz"):
            raise DataError(f"{tree.name}: {other} and {path} are of one split. Keep one set in the folder.")
    for key, half in halves.items():
        missing = {"images", "labels"} - half.keys()
        if missing:
            there = next(iter(half.values()))
            raise DataError(
                f"{tree.name}: {there} is there, the {missing.pop()} file of {key} is not. Fetch the set again."
            )
    return {key: Pair(tree, half["images"], half["labels"]) for key, half in halves.items()}


def _split_of(stem: str) -> str:
    words = re.split(r"[-_.]", stem.lower())
    if "t10k" in words:
        return "test"
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), "images")


def _labels(pair: Pair, names: list[str] | None) -> list[str]:
    count = pair.images.shape[0]
    if len(pair.labels) != count:
        raise DataError(
            f"{pair.labels_path}: {len(pair.labels):,} labels; expected {count:,}, one per image of "
            f"{pair.images_path}. Fetch the set again."
        )
    top = max(pair.labels, default=0)
    if names is None:
        return [str(label) for label in pair.labels]
    if top >= len(names):
        raise DataError(f"{pair.labels_path}: label {top}, but {CLASS_NAMES} names {len(names)} classes. Add the rest.")
    return [names[label] for label in pair.labels]


def _class_names(tree: Tree, base: str) -> list[str] | None:
    """The names in classes.txt, one a line in the order of the labels, or None where there is no such file."""
    path = base + CLASS_NAMES
    if path not in tree.files:
        return None
    names = tree.read(path).decode("utf-8", "replace").splitlines()
    names = [name.strip() for name in names if name.strip()]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a name stands there twice; expected one class per line. Mend it.")
    return names
