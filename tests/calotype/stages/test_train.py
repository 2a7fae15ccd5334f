"""A training refuses what would only come out after it."""

from __future__ import annotations

import pytest

from calotype.errors import ParamsError
from calotype.params import Params
from calotype.project import Project
from calotype.stages import ingest, scan, split, train


def test_an_unknown_slice_is_refused_before_the_first_epoch(project: Project, values: Params) -> None:
    for stage in (scan, ingest, split):
        stage.run(values, project)
    before = sorted(project.root.rglob("*"))
    update = {
        "train": values.train.model_copy(update={"threads": 1}),
        "evaluate": values.evaluate.model_copy(update={"slices": ["dorp"]}),
    }
    with pytest.raises(ParamsError, match=r"evaluate\.slices: found 'dorp'.*expected some of .*drop"):
        train.run(values.model_copy(update=update), project)
    assert sorted(project.root.rglob("*")) == before
