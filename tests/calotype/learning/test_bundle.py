"""The bundle: equal trainings give equal bytes, and a changed byte is never loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calotype import params as parameters
from calotype.errors import DataError
from calotype.files import read_json, sha256_of, write_json
from calotype.learning import bundle, network
from calotype.learning.bundle import Bundle
from calotype.learning.inference import Classifier

SHIPPED = parameters.load(Path(__file__).parents[3] / "params.yaml")


@pytest.fixture
def made() -> Bundle:
    torch.manual_seed(0)
    model = network.build(SHIPPED.network, SHIPPED.image, classes=3)
    return Bundle(
        network=SHIPPED.network,
        classes=("a", "b", "ü"),
        image=SHIPPED.image,
        mean=(0.3,),
        std=(0.2,),
        temperature=1.0,
        weights=model.state_dict(),
        trained_with={"dataset_digest": "d"},
    )


def test_what_is_saved_is_what_is_loaded(made: Bundle, tmp_path: Path) -> None:
    bundle.save(made, tmp_path / "m")
    loaded = bundle.load(tmp_path / "m")
    assert replace(loaded, weights={}) == replace(made, weights={})
    assert all(torch.equal(made.weights[name], loaded.weights[name]) for name in made.weights)


def test_equal_bundles_have_equal_bytes(made: Bundle, tmp_path: Path) -> None:
    for name in ("m", "n"):
        bundle.save(made, tmp_path / name)
    assert bundle.digest(tmp_path / "m") == bundle.digest(tmp_path / "n")
    for path in (tmp_path / "m").iterdir():
        assert path.read_bytes() == (tmp_path / "n" / path.name).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_one_changed_byte_is_refused_by_name(made: Bundle, tmp_path: Path, name: str) -> None:
    bundle.save(made, tmp_path / "m")
    content = bytearray((tmp_path / "m" / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / "m" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: its SHA-256 is"):
        bundle.load(tmp_path / "m")


def test_a_missing_bundle_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no model here. Run `dvc repro`"):
        bundle.load(tmp_path)


def test_a_newer_format_is_refused_by_name(made: Bundle, tmp_path: Path) -> None:
    bundle.save(made, tmp_path / "m")
    description = read_json(tmp_path / "m" / "model.json") | {"format_version": 3}
    write_json(tmp_path / "m" / "model.json", description)
    digests = read_json(tmp_path / "m" / "digests.json")
    write_json(tmp_path / "m" / "digests.json", digests | {"model.json": sha256_of(tmp_path / "m" / "model.json")})
    with pytest.raises(DataError, match="format_version is 3"):
        bundle.load(tmp_path / "m")


def test_a_list_of_digests_that_names_other_files_is_refused(made: Bundle, tmp_path: Path) -> None:
    bundle.save(made, tmp_path / "m")
    write_json(tmp_path / "m" / "digests.json", {"../other": "x"})
    with pytest.raises(DataError, match="expected the digests of"):
        bundle.load(tmp_path / "m")


def test_batched_equals_one_by_one(made: Bundle) -> None:
    images = np.random.default_rng(0).integers(0, 256, (37, 1, 8, 8), dtype=np.uint8)
    whole = Classifier(made, device="cpu", batch_size=64).probabilities(images)
    single = Classifier(made, device="cpu", batch_size=1).probabilities(images)
    assert np.allclose(whole, single, atol=1e-5)
    assert np.allclose(whole.sum(1), 1, atol=1e-5)


def test_no_images_give_no_rows(made: Bundle) -> None:
    images = np.zeros((0, 1, 8, 8), np.uint8)
    assert Classifier(made, device="cpu", batch_size=4).probabilities(images).shape == (0, 3)


def test_an_absent_device_is_said(made: Bundle) -> None:
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(parameters.ParamsError, match="which this machine lacks"):
        Classifier(made, device=absent, batch_size=4)
