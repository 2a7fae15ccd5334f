"""Copy images of the test split into a folder, without their labels: something to predict that was not trained on."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from calotype.data.dataset import read_bytes, read_manifest
from calotype.data.splitting import read_splits
from calotype.errors import DataError
from calotype.files import write_bytes
from calotype.project import Project

SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif"}
NETPBM = {b"P1": "pbm", b"P4": "pbm", b"P2": "pgm", b"P5": "pgm"}


def sample(project: Project, count: int, to: Path) -> str:
    """Copy ``count`` images of the test split, the same ones each time; a file that is there already is kept.

    Names come from the images' ids and tell nothing of their class.

    Raises
    ------
    DataError
        If there is no dataset, no split, or no test image.
    """
    formats = dict(read_manifest(project.dataset).select("image_id", "format").iter_rows())
    tests = read_splits(project.splits).filter(pl.col("split") == "test")["image_id"].sort().to_list()
    if not tests:
        raise DataError("sample: the test split is empty. Run `dvc repro split`.")
    count = min(count, len(tests))
    wanted = [tests[index * len(tests) // count] for index in range(count)]
    copied = 0
    for image_id, data in read_bytes(project.dataset, wanted):
        suffix = SUFFIXES.get(formats[image_id]) or NETPBM.get(data[:2], "ppm")
        path = to / f"{image_id[:12]}.{suffix}"
        if not path.exists():
            write_bytes(path, data)
            copied += 1
    there = f" ({count - copied} were there)" if copied < count else ""
    return f"{count} images of the test split copied to {project.relative(to)}{there}"
