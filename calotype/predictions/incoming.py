"""Images that wait for a prediction: the files of a folder, or the paths of a table, in a fixed order."""

from __future__ import annotations

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

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


@dataclass(frozen=True)
class Waiting:
    """One file that gets one row: its path as shown, and either where to read it or why it cannot be read."""

    path: str
    file: Path | None
    problem: str = ""


class Unreadable(Exception):  # noqa: N818 - an answer, not a failure: the file becomes a rejected row
    """A file whose bytes cannot be had."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


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
        yield from self._walk(self.root)

    def _walk(self, folder: Path) -> Iterator[Waiting]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield self._rejected(folder, f"unreadable: the folder cannot be listed ({error.strerror})")
            return
        for entry in entries:
            path = folder / entry.name
            if not litter_reason(entry.name) and path.absolute() != self.leave_out:
                yield from self._look(path, entry)

    def _look(self, path: Path, entry: os.DirEntry[str]) -> Iterator[Waiting]:
        if entry.is_dir(follow_symlinks=False):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield self._rejected(path, "not-a-file: a folder with the name of an image; what is in it is read")
            yield from self._walk(path)
        elif entry.is_symlink() and path.is_dir():
            yield self._rejected(path, "not-a-file: a link to a folder, which is not followed")
        elif not _is_utf8(path.relative_to(self.root).as_posix()):
            yield self._rejected(path, "bad-name: the name is not UTF-8. Rename the file")
        else:
            yield Waiting(self._shown(path), path)

    def _rejected(self, path: Path, problem: str) -> Waiting:
        return Waiting(self._shown(path), None, problem)

    def _shown(self, path: Path) -> str:
        return shown(path.relative_to(self.root).as_posix())


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


def read(file: Path, *, max_bytes: int) -> bytes:
    """Read a regular file's bytes.

    Raises
    ------
    Unreadable
        With a code and a reason, for whatever is not a readable, regular, not too large file.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for ever.
            raise Unreadable("not-a-file", "neither a file nor a link to one")
        if status.st_size > max_bytes:
            raise Unreadable("too-large", f"{status.st_size:,} bytes; expected at most {max_bytes:,}")
        return file.read_bytes()
    except FileNotFoundError:
        if file.is_symlink():
            raise Unreadable("broken-link", "a link to nothing") from None
        raise Unreadable("missing", "no such file") from None
    except (OSError, ValueError) as error:
        raise Unreadable("unreadable", getattr(error, "strerror", None) or str(error)) from error


def _read_csv(file: Path) -> Any:
    import polars as pl

    return pl.read_csv(file, infer_schema=False)


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
