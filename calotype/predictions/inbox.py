"""The inbox of scheduled predictions: which versions of files are new, and which are still being written."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from calotype import known
from calotype.errors import DataError
from calotype.known import Known
from calotype.predictions import incoming
from calotype.predictions.incoming import Folder, NotNowError, Unreadable, Waiting

MARKER = ".done"
"""What a file's or a folder's name and this name together says: it is complete, however young it is."""

LOOKED_UP_AT_ONCE = 4096
MOST_YOUNG = 100_000
"""Files still being written that are looked at once more; the others wait for the next batch."""


class Place(Protocol):
    """Where an inbox lies: a folder, or a place that fsspec knows."""

    def __iter__(self) -> Iterator[Waiting]:
        """Every file, in the order of paths, with size and times; what cannot be a file with its problem."""

    def at(self, path: str) -> Waiting:
        """A file by its path."""

    def look(self, waiting: Waiting) -> Waiting | None:
        """The file as it is now, None if it is gone."""

    def holds(self, path: str) -> bool:
        """Whether there is anything of this name."""

    def read(self, waiting: Waiting, max_bytes: int) -> bytes:
        """All bytes of a file; raises Unreadable."""


class LocalPlace:
    """A folder of this machine, or one that is mounted."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __iter__(self) -> Iterator[Waiting]:
        return (_looked_at(waiting) for waiting in Folder(self._root))

    def at(self, path: str) -> Waiting:
        return Waiting(path, self._root / path)

    def look(self, waiting: Waiting) -> Waiting | None:
        assert waiting.file is not None
        return _looked_at(waiting) if os.path.lexists(waiting.file) else None

    def holds(self, path: str) -> bool:
        return os.path.lexists(self._root / path)

    def read(self, waiting: Waiting, max_bytes: int) -> bytes:
        return incoming.read_file(waiting, max_bytes)


@dataclass
class Inbox:
    """Files of a place, each version of which is to be seen once.

    Attributes
    ----------
    place
        Where they lie.
    settle_s
        A file that changed more recently is still being written, unless a marker names it.
    files, known, young, gone
        Counts that grow as the files pass by: all; versions that were seen before; still being written at the end;
        changed or gone while they were read.
    unlisted
        Folders whose files could not be listed; ``.`` is the inbox itself.
    """

    place: Place
    settle_s: float
    files: int = 0
    known: int = 0
    young: int = 0
    gone: int = 0
    unlisted: list[str] = field(default_factory=list)
    _waiting: list[Waiting] = field(default_factory=list)

    def new(self, seen: Known, watch: Callable[[int], None]) -> Iterator[Waiting]:
        """Versions of files that are complete and were not seen before, in order; the youngest last.

        Files that are still being written are looked at once more, when the others are done and they have had the time
        to settle.

        Parameters
        ----------
        seen
            Keys of the versions seen: path, size, time of change.
        watch
            Is told how many files have passed.
        """
        entries = self._files()
        while chunk := list(itertools.islice(entries, LOOKED_UP_AT_ONCE)):
            self.files += len(chunk)
            is_known = seen.holds(known.digests_of((one.path, one.size, one.mtime_us) for one in chunk))
            self.known += int(is_known.sum())
            for one in itertools.compress(chunk, ~is_known):
                if self._is_settled(one):
                    yield one
                else:
                    self._keep_for_later(one)
            watch(self.files)
        yield from self._settled_meanwhile()

    def read(self, waiting: Waiting, max_bytes: int) -> bytes:
        """All bytes of the version of a file that was listed.

        Raises
        ------
        NotNowError
            If the file is gone, or is another version by now.
        Unreadable
            If it cannot be read.
        """
        try:
            data = self.place.read(waiting, max_bytes)
        except Unreadable:
            if self.place.look(waiting) is None:
                raise NotNowError from None
            raise
        now = self.place.look(waiting)
        if now is None or (now.size, now.mtime_us) != (waiting.size, waiting.mtime_us):
            raise NotNowError
        return data

    def again(self, path: str, max_bytes: int) -> bytes | None:
        """All bytes of what has this path now; None if they cannot be had."""
        try:
            return self.place.read(self.place.at(path), max_bytes)
        except Unreadable:
            return None

    def _files(self) -> Iterator[Waiting]:
        for one in self.place:
            if one.file is None and one.problem.startswith(incoming.UNLISTED):
                self.unlisted.append(one.path)
            elif not one.path.endswith(MARKER):
                yield one

    def _is_settled(self, one: Waiting) -> bool:
        if one.changed_us is None or time.time() - one.changed_us / 1e6 >= self.settle_s:
            return True
        parts = one.path.split("/")
        return any(self.place.holds("/".join(parts[:depth]) + MARKER) for depth in range(len(parts), 0, -1))

    def _keep_for_later(self, one: Waiting) -> None:
        self.young += 1
        if len(self._waiting) < MOST_YOUNG:
            self._waiting.append(one)

    def _settled_meanwhile(self) -> Iterator[Waiting]:
        if not self._waiting:
            return
        youngest = max(one.changed_us or 0 for one in self._waiting) / 1e6
        # A clock that was wrong when the file was written may say that it comes from the future.
        time.sleep(min(max(youngest + self.settle_s - time.time(), 0), self.settle_s))
        for one in self._waiting:
            if self.place.look(one) == one:
                self.young -= 1
                yield one


def open_place(url: str, named: str) -> Place | None:
    """Find an inbox, None where there is no folder of this name.

    Parameters
    ----------
    url
        A folder's path, or a URL of fsspec.
    named
        What messages call it.

    Raises
    ------
    DataError
        If it is no folder.
    """
    if "://" in url:
        from calotype.predictions.remote import RemoteFolder

        place: Place = RemoteFolder(url)
        return place
    root = Path(url)
    if root.is_dir():
        return LocalPlace(root)
    if root.exists():
        raise DataError(f"{named}: found a file; expected a folder of images. Set CALOTYPE_PREDICT_INBOX to one.")
    return None


def mount_of(folder: Path) -> Path:
    """The mount that a folder lies on: the folder itself, or the nearest above it, links followed."""
    folder = folder.resolve()
    while not folder.is_mount():
        folder = folder.parent
    return folder


def _looked_at(waiting: Waiting) -> Waiting:
    """The file with its size and times; without them where there are none, as for a folder or a link to nothing."""
    if waiting.file is None:
        return waiting
    try:
        found = os.stat(waiting.file)  # noqa: PTH116 - of a million files, each as a Path costs seconds
    except OSError:
        return replace(waiting, size=None, mtime_us=None, changed_us=None)
    # A version that may not be read is another one than the same that may: it is tried again.
    mtime_us = found.st_mtime_ns // 1000 if os.access(waiting.file, os.R_OK) else None
    return replace(waiting, size=found.st_size, mtime_us=mtime_us, changed_us=found.st_ctime_ns // 1000)
