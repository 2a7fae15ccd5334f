"""The files of a folder as a tree that the recognisers of shapes can read."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from calotype.sources.contract import MAX_FILE_BYTES, Tree, Unreadable
from calotype.sources.listing import Walk, walk

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".pgm", ".ppm", ".pnm"),
    *(".pbm", ".avif", ".jp2", ".heic", ".heif", ".ico", ".tga"),
)
"""Only to tell a wrapping folder from a class folder; what is an image is decided by decoding it."""


@dataclass(frozen=True)
class Level:
    """One level of a tree: the files directly in it, and the files below each of its folders."""

    files: tuple[str, ...]
    folders: dict[str, tuple[str, ...]]


def folder_tree(root: Path) -> Tree:
    """Look at a folder on disk."""
    found = Walk()
    paths = tuple(path for path, _, _ in walk(root, found))

    def read(path: str) -> bytes:
        return read_file(f"{root}/{found.raw_names.get(path, path)}")

    return Tree(str(root), paths, tuple(sorted(found.folders)), dict(found.ignored), read)


def read_file(path: str | Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a file of at most ``limit`` bytes, or raise `Unreadable`."""
    try:
        # Unbuffered, in one call for a file of the size that it says: `read(limit)` would make room for the limit.
        with FileIO(path) as file:
            size = os.fstat(file.fileno()).st_size
            is_small = size <= limit
            data = file.read(size + 1) if is_small else b""
            if is_small and len(data) != size:
                data += file.readall()
    except (OSError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
    if not is_small or len(data) > limit:
        raise Unreadable(f"larger than {limit // 2**20} MiB")
    return data


def level(tree: Tree, base: str) -> Level:
    """Sort the files below ``base`` (empty, or ending in a slash) by the folder of the next level."""
    direct: list[str] = []
    below: dict[str, list[str]] = defaultdict(list)
    for folder in tree.folders:
        if folder.startswith(base) and "/" not in folder[len(base) :]:
            below[folder[len(base) :]] = []
    for path in tree.files:
        if path.startswith(base):
            head, slash, _ = path[len(base) :].partition("/")
            (below[head] if slash else direct).append(path)
    return Level(tuple(direct), {name: tuple(below[name]) for name in sorted(below)})


def looks_like_image(path: str) -> bool:
    """Whether a name ends as images do."""
    return path.lower().endswith(IMAGE_SUFFIXES)
