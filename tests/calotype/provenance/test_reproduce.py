"""What counts as the same model again: bits where the machine is the same, else figures within the tolerance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from calotype.provenance.reproduce import Recipe, compare
from calotype.releases.runs import KnownRun, Version

MACHINE = {"device": "cpu", "threads": 2, "processor_flags": ["avx2"], "versions": {"torch": "2.15.0"}}
DIGESTS = {"model.json": "d" * 64, "model.safetensors": "e" * 64, "reference.safetensors": "f" * 64}
FIGURES = {"test/accuracy": 0.90, "test/accuracy_low": 0.87, "test/accuracy_high": 0.93, "test/f1_macro": 0.89}


def recipe(metrics: Mapping[str, float] = FIGURES) -> Recipe:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    digest = hashlib.sha256(json.dumps(DIGESTS).encode()).hexdigest()
    return Recipe(
        version=Version("digits", 3, "r" * 32, {"calotype.bundle_digest": digest}, moment),
        run=KnownRun("r" * 32, "cnn", "digits", "FINISHED", False, moment, {}, {}, metrics),
        commit="c" * 40,
        diff=b"",
        lock=b"",
        environment=MACHINE,
        packages="",
        digests=DIGESTS,
        data_digest="",
        splits_sha256="",
    )


def made(folder: Path, **digests: str) -> Path:
    renamed = {"description": "model.json", "weights": "model.safetensors", "reference": "reference.safetensors"}
    changed = DIGESTS | {renamed[name]: value for name, value in digests.items()}
    (folder / "digests.json").write_text(json.dumps(changed), encoding="utf-8")
    return folder


def never() -> Any:
    raise AssertionError("nothing needs to be scored")


def test_equal_bundles_agree_on_any_machine(tmp_path: Path) -> None:
    verdict = compare(recipe(), made(tmp_path), MACHINE | {"threads": 8}, never)
    assert verdict.agrees
    assert verdict.summary().startswith("digits/3: reproduced, bit for bit\n  bundle ")


def test_equal_weights_with_another_description_do_not_agree(tmp_path: Path) -> None:
    verdict = compare(recipe(), made(tmp_path, description="0" * 64), MACHINE, never)
    assert not verdict.agrees
    assert "equal weights, but another model.json" in verdict.summary()


def test_equal_weights_with_another_reference_do_not_agree(tmp_path: Path) -> None:
    verdict = compare(recipe(), made(tmp_path, reference="0" * 64), MACHINE, never)
    assert not verdict.agrees
    assert "equal weights, but another reference.safetensors" in verdict.summary()


def test_other_weights_on_the_same_machine_do_not_agree(tmp_path: Path) -> None:
    verdict = compare(recipe(), made(tmp_path, weights="0" * 64), MACHINE, never)
    assert not verdict.agrees
    assert f"model.safetensors is  {'0' * 64}" in verdict.summary()


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"threads": 8}, "threads"),
        ({"device": "cuda"}, "device"),
        ({"processor_flags": ["neon"]}, "processor flags"),
        ({"versions": {"torch": "2.16.0"}}, "torch (2.15.0, now 2.16.0)"),
    ],
)
def test_other_weights_of_another_machine_are_judged_by_their_figures(
    tmp_path: Path, other: dict[str, Any], word: str
) -> None:
    place = made(tmp_path, weights="0" * 64)
    near = compare(recipe(), place, MACHINE | other, lambda: {"accuracy": 0.929, "f1_macro": 0.899})
    assert near.agrees
    assert near.summary().startswith("digits/3: reproduced within the tolerance; other weights, with other " + word)
    assert "accuracy 0.9290, was 0.9000; allowed ± 0.0300" in near.summary()
    assert "f1_macro 0.8990, was 0.8900; allowed ± 0.0100" in near.summary()
    far = compare(recipe(), place, MACHINE | other, lambda: {"accuracy": 0.929, "f1_macro": 0.87})
    assert not far.agrees


def test_without_recorded_figures_nothing_agrees(tmp_path: Path) -> None:
    place, other = made(tmp_path, weights="0" * 64), MACHINE | {"threads": 8}
    verdict = compare(recipe({}), place, other, lambda: {"accuracy": 0.9, "f1_macro": 0.9})
    assert not verdict.agrees
    assert "holds no test/accuracy to compare" in verdict.summary()
