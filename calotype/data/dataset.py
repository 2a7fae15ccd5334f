"""Read the dataset that ingest wrote: its digests, its manifest, its images. Every byte is checked before it is used.

::

    data/dataset/
    ├── shard-DDDDD-NNNNN.parquet   original encoded images: drop, number
    ├── manifest.parquet            one row for each image, sorted by image_id
    ├── rejects.parquet             path, code, reason of what was set aside
    ├── departed.parquet            images that left, as far as a group's split hangs on them
    ├── crossings.parquet           files of images that the source declares for several splits
    ├── corrections.parquet         labels that `ingest.corrections` changed
    └── digests.json                SHA-256 of each of these; the last to be written
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from calotype import console, machine
from calotype.data import shards
from calotype.data.decode import DecodeError, decode_fitted
from calotype.errors import DataError
from calotype.files import read_json
from calotype.params import ImageParams

FORMAT_VERSION = 2
MANIFEST = "manifest.parquet"
REJECTS = "rejects.parquet"
CORRECTIONS = "corrections.parquet"
CROSSINGS = "crossings.parquet"
DEPARTED = "departed.parquet"
DIGESTS = "digests.json"

MANIFEST_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "image_id": pl.String,
    "path": pl.String,
    "label": pl.String,
    "group": pl.String,
    "declared_split": pl.String,
    "width": pl.Int32,
    "height": pl.Int32,
    "mode": pl.String,
    "format": pl.String,
    "bytes": pl.Int64,
    "drop": pl.Int32,
    "shard": pl.String,
    "phash": pl.UInt64,
    "twins": pl.List(pl.String),
    "attributes": pl.String,
}
"""Columns of the manifest.

`drop` is the ingest that brought an image, counted from 1: with image_id, it is the order of arrival. `phash` is the
perceptual hash of the picture; `twins` the ids of earlier images that it is a near-duplicate of, decided when it
arrived; `attributes` a JSON object of a table's further columns.
"""

_AGAIN = "Run `dvc repro --force ingest`."
_DECODE_AT_ONCE = 64


class NewerDatasetError(DataError):
    """A newer version of calotype wrote the dataset."""


def read_digests(dataset: Path) -> dict[str, str]:
    """SHA-256 of each file of the dataset.

    Raises
    ------
    DataError
        If there is no dataset, or one of a newer form.
    """
    return dict(_read_digests_json(dataset)["files"])


def digest(dataset: Path) -> str:
    """SHA-256 over the digests of the dataset's files: equal datasets have equal digests."""
    return str(_read_digests_json(dataset)["digest"])


def digest_over(files: dict[str, str]) -> str:
    """SHA-256 over names and digests, in the order of the names."""
    lines = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def read_manifest(dataset: Path) -> pl.DataFrame:
    """Read the manifest: one row for each image, sorted by image_id.

    Raises
    ------
    DataError
        If there is no dataset, or if the manifest is not what its digest says.
    """
    return read_table(dataset, MANIFEST)


def read_table(dataset: Path, name: str) -> pl.DataFrame:
    """Read one of the dataset's other tables.

    Raises
    ------
    DataError
        If it is missing, or if it is not what its digest says.
    """
    return pl.read_parquet(BytesIO(read_verified(dataset, name, read_digests(dataset))))


def read_verified(dataset: Path, name: str, digests: dict[str, str]) -> bytes:
    """Read one file of the dataset and compare its digest.

    Raises
    ------
    DataError
        If the file is missing, or differs from its digest.
    """
    path = dataset / name
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file, though {DIGESTS} lists it. Run `dvc checkout`; else: {_AGAIN}"
        ) from error
    if hashlib.sha256(data).hexdigest() != digests.get(name):
        raise DataError(
            f"{path}: its bytes differ from the digest in {DIGESTS}: the file was changed or damaged after ingest. "
            f"{_AGAIN}"
        )
    return data


def read_bytes(dataset: Path, image_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Go through the encoded bytes of some images, in the order of the shards; holds one shard at a time.

    Raises
    ------
    DataError
        If an image is not in the dataset, or if a shard is not what its digest says.
    """
    for batch in _batches(dataset, image_ids):
        yield from batch


def load_images(
    dataset: Path,
    image_ids: Sequence[str],
    image: ImageParams,
    *,
    max_megapixels: float,
    prefix: str,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Decode images into one array, in the form that the network takes.

    Parameters
    ----------
    dataset
        Folder that ingest wrote.
    image_ids
        Which images, in which order; each once.
    image
        Size, channels and way of resizing.
    max_megapixels
        Pixel cap, `ingest.max_megapixels`.
    prefix
        Stage or verb that shows its progress.
    out
        Where to write: uint8 of the shape that is returned.

    Returns
    -------
    numpy.ndarray
        uint8, images × channels × size × size, in the order of ``image_ids``.

    Raises
    ------
    DataError
        If an image is not in the dataset or cannot be decoded, or if a shard is not what its digest says.
    """
    places = {image_id: place for place, image_id in enumerate(image_ids)}
    if len(places) != len(image_ids):
        raise ValueError("image_ids name an image twice")
    shape = (len(places), image.channels, image.size, image.size)
    images = np.empty(shape, dtype=np.uint8) if out is None else out

    def work(rows: list[tuple[str, bytes]]) -> int:
        for image_id, data in rows:
            images[places[image_id]] = _decode_one(image_id, data, image, max_megapixels)
        return len(rows)

    for _ in console.track(_work_through(dataset, image_ids, work), prefix=prefix, unit="images", total=len(places)):
        pass
    return images


def threads() -> int:
    """How many threads decode: the processors that this process may use, at most 8."""
    return min(8, machine.cores())


def _decode_one(image_id: str, data: bytes, image: ImageParams, max_megapixels: float) -> np.ndarray:
    try:
        return decode_fitted(data, image, max_megapixels=max_megapixels)
    except DecodeError as error:
        raise DataError(
            f"image {image_id[:12]}…: {error}. Ingest could decode it: the cap or the decoder has changed. {_AGAIN}"
        ) from error


def _work_through(dataset: Path, image_ids: Sequence[str], work: Any) -> Iterator[None]:
    """Run ``work`` on small lists of rows in threads, with a bounded number waiting; yield once for each image."""
    waiting: deque[Future[int]] = deque()
    with ThreadPoolExecutor(threads(), thread_name_prefix="decode") as pool:
        for batch in _batches(dataset, image_ids):
            for start in range(0, len(batch), _DECODE_AT_ONCE):
                waiting.append(pool.submit(work, batch[start : start + _DECODE_AT_ONCE]))
                if len(waiting) > 4 * threads():
                    yield from (None for _ in range(waiting.popleft().result()))
        while waiting:
            yield from (None for _ in range(waiting.popleft().result()))


def _batches(dataset: Path, image_ids: Sequence[str]) -> Iterator[list[tuple[str, bytes]]]:
    wanted = set(image_ids)
    digests = read_digests(dataset)
    for shard in _shards_of(dataset, wanted):
        for rows in shards.read(read_verified(dataset, shard, digests)):
            batch = [row for row in rows if row[0] in wanted]
            wanted.difference_update(image_id for image_id, _ in batch)
            if batch:
                yield batch
    if wanted:
        raise _absent(dataset, wanted)


def _shards_of(dataset: Path, wanted: set[str]) -> list[str]:
    rows = read_manifest(dataset).select("image_id", "shard")
    rows = rows.filter(pl.col("image_id").is_in(list(wanted)))
    if rows.height < len(wanted):
        raise _absent(dataset, wanted - set(rows["image_id"].to_list()))
    return sorted(rows["shard"].unique().to_list())


def _absent(dataset: Path, image_ids: set[str]) -> DataError:
    example = min(image_ids)
    verb = "is" if len(image_ids) == 1 else "are"
    return DataError(
        f"{dataset}: {len(image_ids):,} of the images asked for {verb} not there, such as {example[:12]}…: "
        f"splits and dataset belong to different states. Run `dvc repro split`."
    )


def _read_digests_json(dataset: Path) -> dict[str, Any]:
    path = dataset / DIGESTS
    try:
        content = read_json(path)
        version = content["format_version"]
        if version > FORMAT_VERSION:
            raise NewerDatasetError(
                f"{path}: format_version {version}; this version of calotype reads up to {FORMAT_VERSION}. "
                f"Update calotype."
            )
        if digest_over(content["files"]) != content["digest"]:
            raise ValueError("the digest over the files differs")
    except FileNotFoundError as error:
        raise DataError(f"{dataset}: no dataset there. Run `dvc repro ingest`, or `dvc pull`.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {_AGAIN}") from error
    return dict(content)
