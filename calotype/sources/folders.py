"""A folder per class, and train/ val/ test/ over folders per class."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable

from calotype.errors import DataError
from calotype.sources.contract import SPLIT_WORDS, Images, Source, SourceImage, Tree
from calotype.sources.trees import Level, level, looks_like_image

OUTSIDE = "outside the class folders"

MAX_WRAPPING = 3


def recognise(tree: Tree) -> Source | None:
    """Make a source of a tree whose folders are classes, or splits over classes; None if it is neither.

    Raises
    ------
    DataError
        If folders named after splits stand beside others: which of the two is meant cannot be told.
    """
    base = _unwrap(tree)
    here = level(tree, base)
    filled = {name for name, files in here.folders.items() if files}
    splits = {name for name in here.folders if name.lower() in SPLIT_WORDS}
    declared = {SPLIT_WORDS[name.lower()] for name in splits & filled}
    if "train" in declared and filled <= splits:
        return _split_folders(tree, base, here)
    if {"train"} < declared:
        raise DataError(
            f"{tree.name}: {', '.join(f'{name}/' for name in sorted(filled - splits)[:5])} beside "
            f"{', '.join(f'{name}/' for name in sorted(splits))}; expected train/, val/ and test/ alone over the class "
            f"folders, or class folders alone. Move the others out of the source."
        )
    if not filled or (len(filled) > 1 and filled <= splits):
        return None
    return _class_folders(tree, base, here)


def class_folders(tree: Tree) -> dict[str, str]:
    """The folder of each class by its label, in a tree that `recognise` made a source of kind ``folder`` of."""
    base = _unwrap(tree)
    return {_label(name): f"{base}{name}" for name in level(tree, base).folders}


def wrappers(tree: Tree) -> list[str]:
    """The root and the folders that wrap all the rest, outermost first: ``["", "pets/"]``."""
    bases = [""]
    for _ in range(MAX_WRAPPING):
        here = level(tree, bases[-1])
        if len(here.folders) != 1 or any(looks_like_image(path) for path in here.files):
            break
        bases.append(f"{bases[-1]}{next(iter(here.folders))}/")
    return bases


def _unwrap(tree: Tree) -> str:
    """The innermost wrapping folder whose folders may be classes: it holds no image itself, and is no split."""
    base = ""
    for inner in wrappers(tree)[1:]:
        inside = level(tree, inner)
        word = inner[:-1].rpartition("/")[2].lower()
        holds_images = any(looks_like_image(path) for path in inside.files)
        if SPLIT_WORDS.get(word) == "train" or holds_images or not any(inside.folders.values()):
            break
        base = inner
    return base


def _class_folders(tree: Tree, base: str, here: Level) -> Source:
    labels = {name: _label(name) for name in here.folders}

    def image(path: str) -> SourceImage:
        name, _ = path[len(base) :].split("/", 1)
        return SourceImage(path, labels[name])

    empty = tuple(name for name, files in here.folders.items() if not files)
    return _source(tree, "folder", [path for files in here.folders.values() for path in files], image, empty)


def _split_folders(tree: Tree, base: str, here: Level) -> Source | None:
    inside = {name: level(tree, f"{base}{name}/").folders for name in here.folders}
    splits = {name: SPLIT_WORDS[name.lower()] for name in inside}
    labels = {label: _label(label) for folders in inside.values() for label in folders}
    if not any(any(folders.values()) for name, folders in inside.items() if splits[name] == "train"):
        return None

    def image(path: str) -> SourceImage:
        name, label, _ = path[len(base) :].split("/", 2)
        return SourceImage(path, labels[label], splits[name])

    paths = [path for folders in inside.values() for files in folders.values() for path in files]
    empty = [f"{name}/{label}" for name, folders in inside.items() for label, files in folders.items() if not files]
    return _source(tree, "split-folders", paths, image, tuple(empty))


def _source(
    tree: Tree, kind: str, paths: list[str], image: Callable[[str], SourceImage], empty: tuple[str, ...]
) -> Source:
    ignored = Counter(tree.ignored)
    ignored[OUTSIDE] += len(tree.files) - len(paths)
    images = Images(sorted(paths), image)
    return Source(kind, images, dict(+ignored), empty, lambda image: tree.read(image.path))


def _label(folder: str) -> str:
    """Composed form: archives made on macOS spell accents otherwise, and one class would become two."""
    return unicodedata.normalize("NFC", folder)
