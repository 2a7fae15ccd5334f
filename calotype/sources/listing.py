"""A source's files with sizes and times. Standard library alone: scan runs it on every `dvc repro`."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
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
_Pending = tuple[str, str, tuple[tuple[int, int], ...], int]  # folder, its path shown, ancestors, links followed


@dataclass
class Walk:
    """What a walk through a folder found: files as (path, size, mtime in ns), folders, and what was left out."""

    files: list[Listed] = field(default_factory=list)
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
    return _listing_of_table(table) if table else iter(walk(path).files)


def require(path: Path) -> None:
    """Raise DataError, with what to do, if there is nothing at ``path``."""
    try:
        path.stat()
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; expected labelled images. Bring a public set with `calotype fetch digits`, "
            f"or name your own with `calotype use PATH`."
        ) from error


def walk(root: Path) -> Walk:
    """Go through a folder, following links but never in circles.

    Raises
    ------
    DataError
        If a folder cannot be listed: images would be missing in silence.
    """
    found = Walk()
    start = root.stat()
    pending: list[_Pending] = [(str(root), "", ((start.st_dev, start.st_ino),), 0)]
    while pending:
        folder, prefix, ancestors, links = pending.pop()
        for entry in _entries(folder):
            path = prefix + shown(entry.name)
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
                found.folders.append(path)
                pending.append((entry.path, f"{path}/", (*ancestors, identity), links_here))
            else:
                _add_file(found, entry, path, root)
    found.files.sort()
    found.folders.sort()
    return found


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


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
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


def _add_file(found: Walk, entry: os.DirEntry[str], path: str, root: Path) -> None:
    try:
        state = entry.stat()
    except OSError:  # a broken link, or gone since: the reader reports it
        found.files.append((path, -1, 0))
        return
    if not stat.S_ISREG(state.st_mode):
        found.ignored[SPECIAL] += 1
        return
    found.files.append((path, state.st_size, state.st_mtime_ns))
    if "\\" in path:
        found.raw_names[path] = os.path.relpath(entry.path, root)


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
