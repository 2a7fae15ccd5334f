"""An inbox at a URL: a bucket of S3 through boto3, any other place through fsspec.

Both list in the order of paths and hold a page of names at a time, or what fsspec holds. boto3, because fsspec's own
S3 costs twice the processor's time for each object and keeps all of a listing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from calotype import object_store
from calotype.errors import UsageError
from calotype.predictions.incoming import Unreadable, Waiting
from calotype.sources.listing import litter_reason

GONE = ("NoSuchKey", "404")
OF_THE_OBJECT = ("InvalidObjectState",)
"""Codes of S3 that concern one object, in an archive say. All others are of the bucket, the keys or the server, and a
row for each object that met them would be wrong for good."""

READ_ATTEMPTS, READ_S = 5, 20.0
VARIABLE = "CALOTYPE_PREDICT_INBOX"
PLACES = "a folder, s3://bucket/folder, or a URL of fsspec whose package is installed"


class Entry(NamedTuple):
    """A file below a URL: path relative to it, bytes, and microseconds since 1970."""

    path: str
    size: int | None
    mtime_us: int | None


class RemoteFolder:
    """Every file below a URL; hidden files and system litter do not count.

    A file is never seen half written: what S3 lists is complete.

    Raises
    ------
    UsageError
        If nothing is known of such URLs.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._store: _Bucket | _FileSystem = _Bucket(self.url) if object_store.is_s3(url) else _FileSystem(self.url)

    def __iter__(self) -> Iterator[Waiting]:
        """Every file in the order of paths.

        Raises
        ------
        CalotypeError
            If the place cannot be reached, or refuses.
        """
        with self._reaching():
            for entry in self._store.entries():
                if not any(litter_reason(part) for part in entry.path.split("/")):
                    yield self._waiting(entry)

    def at(self, path: str) -> Waiting:
        """A file by its path."""
        return Waiting(path, f"{self.url}/{path}")

    def look(self, waiting: Waiting) -> Waiting | None:
        """The file as it is now, None if it is gone."""
        with self._reaching():
            entry = self._store.entry(waiting.path)
        return None if entry is None else self._waiting(entry)

    def holds(self, path: str) -> bool:
        """Whether there is a file of this name."""
        with self._reaching():
            return self._store.entry(path) is not None

    def read(self, waiting: Waiting, max_bytes: int) -> bytes:
        """All bytes of a file.

        Raises
        ------
        Unreadable
            For what is gone, too large, or may not be read.
        CalotypeError
            If the place cannot be reached: then it is the batch that fails, and no file is to blame.
        """
        if waiting.size is not None and waiting.size > max_bytes:
            raise Unreadable("too-large", f"{waiting.size:,} bytes; expected at most {max_bytes:,}")
        with self._reaching():
            data = self._store.read(waiting.path)
        if data is None:
            raise Unreadable("missing", "no such file")
        return data

    def _reaching(self) -> AbstractContextManager[None]:
        return object_store.reaching(self.url, "the inbox", VARIABLE)

    def _waiting(self, entry: Entry) -> Waiting:
        file = f"{self.url}/{entry.path}"
        return Waiting(entry.path, file, size=entry.size, mtime_us=entry.mtime_us, changed_us=entry.mtime_us)


class _Bucket:
    """A bucket of S3, or a part of one; keys are taken as they are, ``//`` and ``..`` in them too."""

    def __init__(self, url: str) -> None:
        self._bucket, _, prefix = url.partition("://")[2].partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._client = object_store.client(attempts=READ_ATTEMPTS, answer_s=READ_S)
        self._first = object_store.client(attempts=2, answer_s=object_store.ANSWER_S)

    def entries(self) -> Iterator[Entry]:
        """Objects as S3 lists them: in the order of their keys' bytes, a thousand at a time."""
        where = {"Bucket": self._bucket, "Prefix": self._prefix}
        # A wrong address is told of in seconds; one that has answered is waited for.
        self._first.list_objects_v2(**where, MaxKeys=1)
        for page in self._client.get_paginator("list_objects_v2").paginate(**where):
            for found in page.get("Contents", ()):
                # Such a key stands for a folder.
                if not found["Key"].endswith("/"):
                    moment = _microseconds(found["LastModified"])
                    yield Entry(found["Key"][len(self._prefix) :], found["Size"], moment)

    def entry(self, path: str) -> Entry | None:
        found = self._ask(self._client.head_object, path)
        return found and Entry(path, found["ContentLength"], _microseconds(found["LastModified"]))

    def read(self, path: str) -> bytes | None:
        found = self._ask(self._client.get_object, path)
        return found and bytes(found["Body"].read())

    def _ask(self, method: Any, path: str) -> Any:
        from botocore.exceptions import ClientError

        try:
            return method(Bucket=self._bucket, Key=self._prefix + path)
        except ClientError as error:
            code = error.response["Error"].get("Code")
            if code in GONE:
                return None
            if code in OF_THE_OBJECT:
                raise Unreadable("unreadable", object_store.reason(error)) from error
            raise


class _FileSystem:
    """A place that fsspec knows."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            # Some connect at once.
            with object_store.reaching(url, "the inbox", VARIABLE):
                self._files, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{url}: {error}. Expected {PLACES}; set {VARIABLE} to one.") from error

    def entries(self) -> Iterator[Entry]:
        self._files.invalidate_cache()
        found = self._files.find(self._root, detail=True)
        start = len(self._root.rstrip("/")) + 1
        return (_entry(name[start:], found[name]) for name in sorted(found))

    def entry(self, path: str) -> Entry | None:
        self._files.invalidate_cache()
        try:
            return _entry(path, self._files.info(self._at(path)))
        except FileNotFoundError:
            return None

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(self._at(path)))
        except FileNotFoundError:
            return None
        except (PermissionError, IsADirectoryError) as error:
            raise Unreadable("unreadable", error.strerror or str(error)) from error

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"


def _entry(path: str, info: dict[str, Any]) -> Entry:
    names = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")
    moment = next((info[name] for name in names if info.get(name)), None)
    return Entry(path, info.get("size"), None if moment is None else _microseconds(moment))


def _microseconds(moment: float | str | datetime) -> int:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return round(moment * 1e6)
