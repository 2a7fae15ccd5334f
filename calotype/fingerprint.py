"""A digest of a source's paths, sizes and times: cheap to take, and different when a file changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

from calotype.sources.listing import stat_listing

FORMAT_VERSION = 1


def fingerprint(path: Path, shown_as: str) -> dict[str, str | int]:
    """Digest what the file system says about a source, without opening an image.

    Parameters
    ----------
    path
        Where the source is.
    shown_as
        How params.yaml names it.

    Returns
    -------
    dict
        What `scan` writes to data/source.json.

    Raises
    ------
    DataError
        If nothing is there.
    """
    digest = hashlib.sha256()
    files = size = 0
    for name, length, modified_ns in stat_listing(path):
        digest.update(f"{name}\0{length}\0{modified_ns}\n".encode())
        files += 1
        size += max(0, length)
    return {
        "format_version": FORMAT_VERSION,
        "source": shown_as,
        "kind": "folder" if path.is_dir() else "".join(path.suffixes).lstrip(".").lower() or "file",
        "files": files,
        "bytes": size,
        "digest": digest.hexdigest(),
    }
