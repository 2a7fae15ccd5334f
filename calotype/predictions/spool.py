"""Rows of both tables on the disk, until their commits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from calotype.predictions.inbox_rows import Rows
from calotype.predictions.tables import BY_CONTENT, BY_FILE


class Spool:
    """Two files in a folder: written once, front to back, then read for each attempt of a commit."""

    def __init__(self, folder: Path) -> None:
        self._paths = {"predictions": folder / "predictions.arrow", "files": folder / "files.arrow"}
        self._schemas = {"predictions": BY_CONTENT.spooled, "files": BY_FILE.spooled}

    def __enter__(self) -> None:
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writers = {
            name: pa.ipc.new_stream(str(path), self._schemas[name], options=options)
            for name, path in self._paths.items()
        }

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, rows: Rows) -> None:
        """Keep the rows of a batch."""
        self._writers["predictions"].write_batch(rows.predictions)
        self._writers["files"].write_batch(rows.files)

    def predictions(self) -> Iterator[pa.RecordBatch]:
        """Rows of the table of predictions."""
        return self._read("predictions")

    def files(self) -> Iterator[pa.RecordBatch]:
        """Rows of the table of files."""
        return self._read("files")

    def _read(self, name: str) -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(self._paths[name])) as file, pa.ipc.open_stream(file) as reader:
            yield from reader
