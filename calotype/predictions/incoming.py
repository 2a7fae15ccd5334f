"""Images that wait for a prediction: the files of a folder, or the paths of a table, in a fixed order."""

from __future__ import annotations

import heapq
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.errors import DataError, UsageError
from calotype.sources.listing import litter_reason, shown

TABLES = (".csv", ".parquet")

REJECTIONS = {
    "missing": "a table names a file that is not there",
    "broken-link": "a link to nothing",
    "not-a-file": "a folder, a link to a folder, a pipe or a device where a file was expected",
    "bad-name": "the file's name is not UTF-8",
}
"""Codes of rejected images, with their meanings, beside those of `calotype.data.decode`."""

UNLISTED = "unreadable: the folder cannot be listed"

SORTED_AT_ONCE = 10_000
"""Names of a folder that are objects at one time."""

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


@dataclass(frozen=True, slots=True)
class Waiting:
    """One file that gets one row: its path as shown, and either where to read it or why it cannot be read.

    Attributes
    ----------
    path, file, problem
        As said.
    size, mtime_us, changed_us
        Of a file in an inbox: bytes, and times in microseconds since 1970, of the version that is meant and of the last
        change of any kind.
    """

    path: str
    file: str | Path | None
    problem: str = ""
    size: int | None = None
    mtime_us: int | None = None
    changed_us: int | None = None


class Unreadable(Exception):  # noqa: N818 - an answer, not a failure: the file becomes a rejected row
    """A file whose bytes cannot be had."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class NotNowError(Exception):
    """A file that changed or went while it was read: it gets no row this time."""


def open_incoming(source: Path, *, leave_out: Path | None = None) -> Folder | Table:
    """Recognise a folder, or a CSV or Parquet table with a column ``path``.

    Parameters
    ----------
    source
        The folder or the table.
    leave_out
        A file that is never read as an image: where the predictions go.

    Raises
    ------
    UsageError
        If the source does not exist or has neither form.
    """
    if source.is_dir():
        return Folder(source, leave_out.absolute() if leave_out else None)
    if source.suffix.lower() in TABLES and source.is_file():
        return Table(source)
    if not source.exists():
        raise UsageError(f"{source}: no such folder or table. Name a folder of images, or a .csv or .parquet table.")
    raise UsageError(
        f"{source}: found a file that is no table; expected a folder of images, or a .csv or .parquet table with a "
        f"column `path`. For one image, name its folder."
    )


@dataclass(frozen=True)
class Folder:
    """Every file below a folder, sorted by path; hidden files and system litter do not count."""

    root: Path
    leave_out: Path | None = None

    def count(self) -> int:
        """How many rows there will be."""
        return sum(1 for _ in self)

    def found(self) -> str:
        """Say what the folder holds, for the error that it holds nothing to predict."""
        ignored = sum(1 for entry in os.scandir(self.root) if litter_reason(entry.name))
        return f"no files ({ignored} hidden or system files ignored)" if ignored else "no files"

    def __iter__(self) -> Iterator[Waiting]:
        yield from self._walk(str(self.root), "")

    def _walk(self, folder: str, below: str) -> Iterator[Waiting]:
        try:
            entries = _sorted_entries(folder)
        except OSError as error:
            yield Waiting(shown(below[:-1] or "."), None, f"{UNLISTED} ({error.strerror})")
            return
        for name, kind in entries:
            path = os.path.join(folder, name)  # noqa: PTH118 - of a million files, each as a Path costs seconds
            if not litter_reason(name) and not self._is_left_out(name, path):
                yield from self._look(path, below + name, kind)

    def _look(self, path: str, name: str, kind: str) -> Iterator[Waiting]:
        if kind == "d":
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                problem = "not-a-file: a folder with the name of an image; what is in it is read"
                yield Waiting(shown(name), None, problem)
            yield from self._walk(path, f"{name}/")
        elif kind == "l" and Path(path).is_dir():
            yield Waiting(shown(name), None, "not-a-file: a link to a folder, which is not followed")
        elif not _is_utf8(name):
            yield Waiting(shown(name), None, "bad-name: the name is not UTF-8. Rename the file")
        else:
            yield Waiting(name, path)

    def _is_left_out(self, name: str, path: str) -> bool:
        return self.leave_out is not None and name == self.leave_out.name and Path(path).absolute() == self.leave_out


@dataclass(frozen=True)
class Table:
    """The paths that a table lists, in its order, relative to the table's folder."""

    file: Path

    def count(self) -> int:
        """How many rows there will be."""
        return len(self._paths())

    def found(self) -> str:
        """Say what the table holds, for the error that it holds nothing to predict."""
        return "no rows"

    def __iter__(self) -> Iterator[Waiting]:
        for number, path in enumerate(self._paths(), 1):
            if path:
                yield Waiting(path, self.file.parent / path)
            else:
                yield Waiting("", None, f"missing: row {number} of the table has no path")

    def _paths(self) -> Any:
        import polars as pl

        try:
            frame = pl.read_parquet(self.file) if self.file.suffix.lower() == ".parquet" else _read_csv(self.file)
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{self.file}: cannot be read as a table ({reason}). Expected a column `path`.") from error
        if "path" not in frame.columns:
            columns = ", ".join(frame.columns) or "none"
            raise DataError(f"{self.file}: found the columns {columns}; expected one named `path`.")
        return frame["path"].cast(pl.String)


def read_file(waiting: Waiting, max_bytes: int) -> bytes:
    """Read a waiting file; as `read`."""
    assert waiting.file is not None
    return read(waiting.file, max_bytes=max_bytes)


def read(file: str | Path, *, max_bytes: int) -> bytes:
    """Read a regular file's bytes.

    Raises
    ------
    Unreadable
        With a code and a reason, for whatever is not a readable, regular, not too large file.
    """
    try:
        status = os.stat(file)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for ever.
            raise Unreadable("not-a-file", "neither a file nor a link to one")
        if status.st_size > max_bytes:
            raise Unreadable("too-large", f"{status.st_size:,} bytes; expected at most {max_bytes:,}")
        with open(file, "rb", buffering=0) as opened:  # noqa: PTH123
            return opened.read()
    except FileNotFoundError:
        if Path(file).is_symlink():
            raise Unreadable("broken-link", "a link to nothing") from None
        raise Unreadable("missing", "no such file") from None
    except (OSError, ValueError) as error:
        raise Unreadable("unreadable", getattr(error, "strerror", None) or str(error)) from error


def _sorted_entries(folder: str) -> Iterator[tuple[str, str]]:
    """A folder's names in the order of their bytes, each with its kind: ``d`` folder, ``l`` link, ``f`` all else.

    Sorted in runs that are kept as bytes and merged: a folder of a million files costs the bytes of their names.
    """
    runs: list[bytes] = []
    with os.scandir(os.fsencode(folder)) as entries:
        records = (entry.name + b"\0" + _kind(entry) for entry in entries)
        while run := sorted(itertools.islice(records, SORTED_AT_ONCE)):
            runs.append(b"".join(run))
    return (_named(record) for record in heapq.merge(*map(_records, runs)))


def _kind(entry: os.DirEntry[bytes]) -> bytes:
    if entry.is_dir(follow_symlinks=False):
        return b"d"
    return b"l" if entry.is_symlink() else b"f"


def _records(run: bytes) -> Iterator[bytes]:
    """Cut a run into its records: name, zero byte, kind."""
    start = 0
    while start < len(run):
        end = run.index(b"\0", start) + 2
        yield run[start:end]
        start = end


def _named(record: bytes) -> tuple[str, str]:
    return os.fsdecode(record[:-2]), chr(record[-1])


def _read_csv(file: Path) -> Any:
    import polars as pl

    return pl.read_csv(file, infer_schema=False)


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
