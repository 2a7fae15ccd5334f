"""One shard: a Parquet file of original encoded images in the form that Hugging Face `datasets` reads as pictures.

Columns are ``image_id`` and ``image`` (a struct of ``bytes`` and ``path``). ``path`` is the image_id with the format's
suffix and not the path in the source: a renamed file must not change a shard. Equal rows give equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MAX_IMAGES = 20_000
MAX_BYTES = 256 * 2**20
GROUP_IMAGES = 1_000
GROUP_BYTES = 16 * 2**20

NAME = re.compile(r"^shard-\d{5}-\d{5}\.parquet$")

_FEATURES = {"image_id": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}
SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]), nullable=False),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}}, sort_keys=True)},
)

Row = tuple[str, bytes, str]
"""image_id, encoded bytes, format."""


def name_of(drop: int, number: int) -> str:
    """File name of a shard: which drop of images brought it, and its number within the drop."""
    return f"shard-{drop:05d}-{number:05d}.parquet"


def drop_of(name: str) -> int:
    """The drop in a shard's file name."""
    return int(name.split("-")[1])


class Writer:
    """Pack rows into numbered shards of bounded size; holds one row group of image bytes at a time.

    The files are called ``new-NNNNN.parquet``: the drop's number is known only when every image has been read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Row] = []
        self._row_bytes = 0
        self._file: pq.ParquetWriter | None = None
        self._file_images = 0
        self._file_bytes = 0
        self.paths: list[Path] = []

    def add(self, image_id: str, data: bytes, kind: str) -> int:
        """Take one image; return the number of the shard that holds it."""
        if self._file_images >= MAX_IMAGES or (self._file_images and self._file_bytes + len(data) > MAX_BYTES):
            self.close()
        self._rows.append((image_id, data, kind))
        self._row_bytes += len(data)
        self._file_images += 1
        self._file_bytes += len(data)
        number = len(self.paths) - (self._file is not None)
        if len(self._rows) >= GROUP_IMAGES or self._row_bytes >= GROUP_BYTES:
            self._flush()
        return number

    def close(self) -> None:
        """Finish the shard that is being written, if one is."""
        self._flush()
        if self._file is not None:
            self._file.close()
        self._file = None
        self._file_images = self._file_bytes = 0

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._file is None:
            path = self._folder / f"new-{len(self.paths):05d}.parquet"
            self._file = _open(path)
            self.paths.append(path)
        _write_group(self._file, self._rows)
        self._rows, self._row_bytes = [], 0


def read(data: bytes) -> Iterator[list[tuple[str, bytes]]]:
    """Go through a shard's bytes: lists of (image_id, encoded bytes), at most a row group at a time."""
    for rows in _groups(data):
        yield [(image_id, encoded) for image_id, encoded, _ in rows]


def pick(path: Path, image_ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Go through some images of a shard's file; reads the row groups that hold one of them, one at a time."""
    with pq.ParquetFile(path) as file:
        for index in range(file.num_row_groups):
            ids = file.read_row_group(index, columns=["image_id"]).column("image_id").to_pylist()
            places = [place for place, image_id in enumerate(ids) if image_id in image_ids]
            if places:
                data = file.read_row_group(index).column("image").combine_chunks().field("bytes")
                for place in places:
                    yield ids[place], data[place].as_py()


def rewrite(data: bytes, path: Path, keep: Iterable[str]) -> None:
    """Write a shard's rows again, in order, without the images that are not in ``keep``."""
    wanted = set(keep)
    with _open(path) as file:
        for group in _groups(data):
            rows = [row for row in group if row[0] in wanted]
            if rows:
                _write_group(file, rows)


def _groups(data: bytes) -> Iterator[list[Row]]:
    file = pq.ParquetFile(pa.BufferReader(data))
    for index in range(file.num_row_groups):
        table = file.read_row_group(index)
        image = table.column("image").combine_chunks()
        names = [name.rpartition(".")[2] for name in image.field("path").to_pylist()]
        yield list(zip(table.column("image_id").to_pylist(), image.field("bytes").to_pylist(), names, strict=True))


def _open(path: Path) -> pq.ParquetWriter:
    # Every setting that decides the bytes is named: a default that changes must not change a shard.
    return pq.ParquetWriter(
        path,
        SCHEMA,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        write_statistics=False,
        data_page_size=2**20,
    )


def _write_group(file: pq.ParquetWriter, rows: list[Row]) -> None:
    ids, data, kinds = zip(*rows, strict=True)
    names = [f"{image_id}.{kind.lower()}" for image_id, kind in zip(ids, kinds, strict=True)]
    image = pa.StructArray.from_arrays(
        [pa.array(data, pa.binary()), pa.array(names, pa.string())], fields=list(SCHEMA.field("image").type)
    )
    batch = pa.RecordBatch.from_arrays([pa.array(ids, pa.string()), image], schema=SCHEMA)
    file.write_table(pa.Table.from_batches([batch]), row_group_size=len(rows))
