"""A digest of a source's paths, sizes and times: cheap to take, and different when a file changed.

The table of corrected labels belongs to it, by its content.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from calotype.errors import DataError
from calotype.files import sha256_of
from calotype.params import IngestParams
from calotype.project import Project
from calotype.sources.listing import stat_listing

FORMAT_VERSION = 1


NO_CORRECTIONS = "none"


def corrections_path(params: IngestParams, project: Project) -> Path | None:
    """Where the table of corrected labels is; None if `ingest.corrections` is ``none``."""
    return None if params.corrections == NO_CORRECTIONS else project.resolve(params.corrections)


def take(params: IngestParams, project: Project) -> dict[str, str | int]:
    """Digest the source and the corrections that params.yaml names: see `fingerprint`."""
    return fingerprint(project.resolve(params.source), params.source, corrections_path(params, project))


def fingerprint(path: Path, shown_as: str, corrections: Path | None) -> dict[str, str | int]:
    """Digest what the file system says about a source, without opening an image.

    Parameters
    ----------
    path
        Where the source is.
    shown_as
        How params.yaml names it.
    corrections
        Where the table of corrected labels is, if there is one.

    Returns
    -------
    dict
        What `scan` writes to data/source.json.

    Raises
    ------
    DataError
        If nothing is there, or if the corrections cannot be read.
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
        "corrections": NO_CORRECTIONS if corrections is None else _digest_of(corrections),
    }


def no_corrections(path: Path, error: OSError) -> DataError:
    """Say that the table of corrections cannot be read."""
    return DataError(
        f"{path}: {error.strerror}; expected a CSV of corrected labels. Mend `ingest.corrections` in params.yaml; "
        f"`{NO_CORRECTIONS}` leaves the labels as the source says."
    )


def _digest_of(corrections: Path) -> str:
    try:
        return sha256_of(corrections)
    except OSError as error:
        raise no_corrections(corrections, error) from error
