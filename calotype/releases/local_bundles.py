"""Registered bundles on this machine, under .cache/models, and the champion that needs no question to MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calotype.files import read_json, sha256_of
from calotype.project import Project
from calotype.releases import ledger

DIGESTS = "digests.json"


@dataclass(frozen=True)
class Champion:
    """A version with its bundle on this machine; ``split_digest`` tells on which test split it was evaluated."""

    name: str
    version: int
    run_id: str
    bundle_digest: str
    bundle_folder: Path
    split_digest: str | None = None

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.name} version {self.version}"

    def summary(self) -> str:
        """One line for a person."""
        return f"{self.title} (bundle {self.bundle_digest[:12]}, MLflow run {self.run_id})"


def folder_of(project: Project, digest: str) -> Path:
    """Where a bundle's copy is, or would be."""
    return project.cache / "models" / digest


def is_sound(folder: Path, digest: str) -> bool:
    """Compare the bytes alone: whoever uses a bundle parses it, and a rollback should not wait for torch."""
    listing = folder / DIGESTS
    if not listing.is_file() or sha256_of(listing) != digest:
        return False
    files: dict[str, str] = read_json(listing)
    return all((folder / name).is_file() and sha256_of(folder / name) == found for name, found in files.items())


def known_champion(project: Project, name: str) -> Champion | None:
    """The champion by the ledger alone, if a sound copy of its bundle is here; None: the registry must be asked.

    What was done in MLflow past the ledger is not seen: an alias moved, or a version deleted, by hand.
    """
    title = ledger.read(project.ledger, name).title
    if title is None or title.to_version is None or not (title.bundle_digest and title.run_id):
        return None
    folder = folder_of(project, title.bundle_digest)
    if not is_sound(folder, title.bundle_digest):
        return None
    return Champion(name, title.to_version, title.run_id, title.bundle_digest, folder)
