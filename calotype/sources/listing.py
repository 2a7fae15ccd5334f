"""A source's files with sizes and times. Standard library alone: scan runs it on every `dvc repro`."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from calotype.errors import DataError

LITTER = frozenset(
    {
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    }
)
"""What operating systems leave behind, in lower case; names that start with a dot are litter as well."""

HIDDEN = "hidden"
SYSTEM_LITTER = "system litter"
SPECIAL = "not a regular file"
LOOP = "folder link that leads back or too deep"

MAX_LINKS = 4
"""Folder links followed within one another: links that cross would multiply without end."""

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")

Listed = tuple[str, int, int]
_Folder = tuple[str, str, tuple[tuple[int, int], ...], int]  # name on disk, path shown, ancestors, links followed
_Pending = tuple[Listed, _Folder | None]


@dataclass
class Walk:
    """What a walk through a folder came upon beside its files: folders, and what was left out."""

    folders: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    raw_names: dict[str, str] = field(default_factory=dict)
    """Names on disk of the files whose names are not UTF-8, by the escaped name shown."""


def stat_listing(path: Path) -> Iterator[Listed]:
    """List a source's files: path relative to the source, size in bytes, modification time in ns; sorted.

    A folder gives every file below it, litter left out. A table gives itself and the files that it names (a missing
    one with size -1), because those may lie anywhere. An archive gives itself.

    Raises
    ------
    DataError
        If there is nothing at ``path``, or if a folder below it cannot be listed.
    """
    require(path)
    if not path.is_dir():
        table = path if path.suffix.lower() in TABLE_SUFFIXES else None
        return _listing_of_table(table) if table else iter([_stat(path, path.name)])
    table = _table_in(path)
    return _listing_of_table(table) if table else walk(path, Walk())


def require(path: Path) -> None:
    """Raise DataError, with what to do, if there is nothing at ``path``."""
    try:
        path.stat()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; expected labelled images. Bring a public set with `calotype fetch digits`, "
            f"or name your own with `calotype use PATH`."
        ) from error


def walk(root: Path, found: Walk) -> Iterator[Listed]:
    """Go through a folder's files, sorted by path, following links but never in circles; holds one folder at a time.

    Parameters
    ----------
    root
        The folder.
    found
        Is told what else is there.

    Yields
    ------
    tuple
        Path relative to the folder, size in bytes, modification time in ns.

    Raises
    ------
    DataError
        If a folder cannot be listed: images would be missing in silence.
    """
    start = root.stat()
    pending = _inside((str(root), "", ((start.st_dev, start.st_ino),), 0), root, found)
    while pending:
        listed, folder = pending.pop()
        if folder is None:
            yield listed
        else:
            found.folders.append(folder[1])
            pending += _inside(folder, root, found)


def _inside(folder: _Folder, root: Path, found: Walk) -> list[_Pending]:
    """A folder's files and folders, the last first. A folder sorts as its files' paths do: with a slash."""
    on_disk, path, ancestors, links = folder
    inside: list[_Pending] = []
    for entry in _entries(on_disk):
        name = f"{path}/{shown(entry.name)}" if path else shown(entry.name)
        reason = litter_reason(entry.name)
        if reason:
            found.ignored[reason] += 1
        elif _is_folder(entry):
            links_here = links + entry.is_symlink()
            state = entry.stat()
            identity = (state.st_dev, state.st_ino)
            if identity in ancestors or links_here > MAX_LINKS:
                found.ignored[LOOP] += 1
                continue
            inside.append(((f"{name}/", 0, 0), (entry.path, name, (*ancestors, identity), links_here)))
        elif listed := _file(found, entry, name, root):
            inside.append((listed, None))
    return sorted(inside, key=itemgetter(0), reverse=True)


def litter_reason(name: str) -> str | None:
    """Why a file or folder of this name is left out, or None if it is not."""
    if name.lower() in LITTER or name == ".DS_Store" or name.startswith("._"):
        return SYSTEM_LITTER
    return HIDDEN if name.startswith(".") else None


def shown(name: str) -> str:
    """A name as text that can be stored and printed: bytes that are not UTF-8 are escaped."""
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(
            f"{shown(folder)}: cannot be listed ({error.strerror}); its images would be missing. "
            f"Mend its permissions, or take it out of the source."
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file(found: Walk, entry: os.DirEntry[str], path: str, root: Path) -> Listed | None:
    try:
        state = entry.stat()
    except OSError:  # a broken link, or gone since: the reader reports it
        return path, -1, 0
    if not stat.S_ISREG(state.st_mode):
        found.ignored[SPECIAL] += 1
        return None
    if "\\" in path:
        found.raw_names[path] = os.path.relpath(entry.path, root)
    return path, state.st_size, state.st_mtime_ns


def _stat(path: Path, name: str) -> Listed:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return name, -1, 0
    return name, state.st_size, state.st_mtime_ns


def _table_in(folder: Path) -> Path | None:
    """The table that makes a folder a table source, looked for without reading anything where no such file is."""
    candidates = [entry.name for entry in _entries(str(folder)) if entry.name.lower().endswith(TABLE_SUFFIXES)]
    if not candidates:
        return None
    from calotype.sources.table import only_table

    name = only_table(str(folder), sorted(candidates), lambda name: (folder / name).read_bytes())
    return folder / name if name else None


def _listing_of_table(table: Path) -> Iterator[Listed]:
    from calotype.sources.table import paths_of

    named = {path: table.parent / path for path in paths_of(table.read_bytes(), str(table))}
    return iter(sorted([_stat(table, table.name), *(_stat(file, path) for path, file in named.items())]))
