"""A project in production: a champion in the ledger with its bundle at hand, and answers in the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calotype import params
from calotype.learning import bundle
from calotype.params import Params
from calotype.project import Project
from calotype.releases import ledger, local_bundles
from calotype.releases.ledger import Draft

if TYPE_CHECKING:
    from calotype.learning.bundle import Bundle


@pytest.fixture
def values_of(project: Project) -> Params:
    """The values of the project."""
    return params.load(project.params)


@pytest.fixture
def in_production(project: Project, tiny_bundle: Bundle, values_of: Params) -> Project:
    """The tiny model of digits is champion, as version 1; nothing is predicted yet."""
    staged = project.cache / "models" / "staged"
    bundle.save(tiny_bundle, staged)
    digest = bundle.digest(staged)
    staged.rename(local_bundles.folder_of(project, digest))
    crown(project, values_of, 1, digest)
    return project


def crown(project: Project, values: Params, version: int, digest: str | None = None) -> None:
    """Write into the ledger that a version is champion now."""
    draft = Draft(version, version, "promote", "for the test", bundle_digest=digest, run_id=digest and "run-1")
    ledger.commit(project.ledger, values.name, "test", lambda _: draft)
