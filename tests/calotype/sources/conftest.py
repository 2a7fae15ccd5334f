"""Small trees on disk for the tests of sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Plant = Callable[..., Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write files below a new folder: a name that ends in a slash is an empty folder, others hold their own name."""

    def write(*names: str, root: str = "images", **contents: bytes) -> Path:
        folder = tmp_path / root
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = folder / name
            if name.endswith("/"):
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(contents.get(name, name.encode()))
        return folder

    return write
