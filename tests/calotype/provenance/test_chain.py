"""What a chain makes of the texts that MLflow keeps."""

from __future__ import annotations

from calotype import params
from calotype.params import Params
from calotype.provenance.chain import _typed


def test_recorded_parameters_have_the_types_of_params_yaml_again(values: Params) -> None:
    flat = params.flatten(values)
    assert _typed({key: str(value) for key, value in flat.items()}) == flat


def test_a_text_that_looks_like_a_number_stays_a_text() -> None:
    recorded = {"name": "1984", "split.salt": "42", "ingest.source": "None", "network.widths": "[32, 64]"}
    typed = {"name": "1984", "split.salt": "42", "ingest.source": "None", "network.widths": [32, 64]}
    assert _typed(recorded) == typed


def test_parameters_that_this_calotype_does_not_know_are_read_as_they_look() -> None:
    recorded = {"old.rate": "1e-05", "old.on": "True", "gone": "cosine", "train.notes": "[1, 2, 3, …"}
    assert _typed(recorded) == {"old.rate": 1e-05, "old.on": True, "gone": "cosine", "train.notes": "[1, 2, 3, …"}
