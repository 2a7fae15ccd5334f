"""A project in production whose champion answers digits, as they are or changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from calotype import params
from calotype.predictions import scheduled
from calotype.project import Project
from calotype.releases import promotion, registry

WINDOW = 60


def watch(project: Project) -> Project:
    """Make the project's trained model champion; windows of 60 images are enough, files need not settle."""
    text = project.params.read_text(encoding="utf-8")
    for old, new in (("settle_s: 5", "settle_s: 0"), ("min_images: 100", f"min_images: {WINDOW}")):
        assert old in text
        text = text.replace(old, new)
    project.params.write_text(text, encoding="utf-8")
    values = params.load(project.params)
    registry.register(project, values)
    assert promotion.promote(project, values, force=True, reason="a test").promoted
    return project


def predict(project: Project, first: int, count: int = WINDOW, *, factor: float = 1.0) -> None:
    """Put digits into the inbox, from the ``first`` of a fixed random order, darkened by a factor; answer them."""
    from sklearn.datasets import load_digits

    images = load_digits().images[np.random.default_rng(0).permutation(1797)[first : first + count]]
    folder = Path(project.inbox) / f"{first:04}"
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray((image * factor * 255 / 16).round().astype("uint8")).save(folder / f"{number:04}.png")
    summary = scheduled.predict_inbox(project, params.load(project.params))
    # Of digits some are the same to the last pixel: those have one row.
    assert summary.appended >= count - 3
