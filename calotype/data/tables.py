"""Write a table as Parquet: equal tables give equal bytes."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from calotype.files import replacing


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame atomically, with every setting named that decides the bytes."""
    with replacing(path) as temporary:
        frame.rechunk().write_parquet(
            temporary,
            compression="zstd",
            compression_level=3,
            statistics=True,
            row_group_size=100_000,
            data_page_size=2**20,
        )
