"""The bundle: equal trainings give equal bytes, and a changed byte is never loaded."""

from __future__ import annotations

import subprocess
import sys
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
from calotype.learning.embedding import PROJECTION
from calotype.learning.inference import Classifier, with_embedding
from calotype.learning.reference import Reference

SHIPPED = parameters.load(Path(__file__).parents[3] / "params.yaml")


@pytest.fixture
def made() -> Bundle:
    torch.manual_seed(0)
    model = network.build(SHIPPED.network, SHIPPED.image, classes=3)
    plain = Bundle(
        network=SHIPPED.network,
        classes=("a", "b", "ü"),
        image=SHIPPED.image,
        mean=(0.3,),
        std=(0.2,),
        temperature=1.0,
        weights=model.state_dict(),
        trained_with={"dataset_digest": "d"},
    )
    return with_embedding(plain)


@pytest.fixture
def reference() -> Reference:
    random = np.random.default_rng(0)
    return Reference(
        embedding=random.normal(size=(7, 64)).astype(np.float16),
        probabilities=random.random((7, 3), dtype=np.float32),
        appearance=random.random((7, 3), dtype=np.float32),
        labels=random.integers(0, 3, 7),
    )


def rewrite(folder: Path, *without: str, **changes: object) -> None:
    """Change a description, and its digest with it."""
    described = {key: value for key, value in read_json(folder / "model.json").items() if key not in without}
    write_json(folder / "model.json", described | changes)
    digests = read_json(folder / "digests.json")
    write_json(folder / "digests.json", digests | {"model.json": sha256_of(folder / "model.json")})


def test_what_is_saved_is_what_is_loaded(made: Bundle, tmp_path: Path) -> None:
    bundle.save(made, tmp_path / "m")
    loaded = bundle.load(tmp_path / "m")
    assert replace(loaded, weights={}) == replace(made, weights={})
    assert all(torch.equal(made.weights[name], loaded.weights[name]) for name in made.weights)


def test_the_reference_that_is_saved_is_read_and_equal_in_every_bit(
    made: Bundle, reference: Reference, tmp_path: Path
) -> None:
    bundle.save(made, tmp_path / "m", reference)
    found = bundle.reference(tmp_path / "m")
    assert found is not None
    for name, values in vars(reference).items():
        read = getattr(found, name)
        assert (read.dtype, read.shape, read.tobytes()) == (values.dtype, values.shape, values.tobytes())


def test_bundles_of_older_formats_are_read_and_have_neither_embedding_nor_reference(
    made: Bundle, tmp_path: Path
) -> None:
    own = {name: tensor for name, tensor in made.weights.items() if name != PROJECTION}
    older = replace(made, weights=own, embedding_size=0, abstain_below=0.5)
    images = np.zeros((5, 1, 8, 8), np.uint8)
    expected = Classifier(made, device="cpu", batch_size=4).probabilities(images)
    for version, lacking in ((2, ["embedding_size"]), (1, ["embedding_size", "abstain_below"])):
        bundle.save(older, tmp_path / "m")
        rewrite(tmp_path / "m", *lacking, format_version=version)
        loaded = bundle.load(tmp_path / "m")
        assert loaded.abstain_below == (0.5 if version > 1 else 0)
        assert bundle.reference(tmp_path / "m") is None
        probabilities, embedding = Classifier(loaded, device="cpu", batch_size=4).answers(images)
        np.testing.assert_array_equal(probabilities, expected)
        assert embedding.shape == (5, 0)


def test_description_and_reference_are_read_without_torch(made: Bundle, reference: Reference, tmp_path: Path) -> None:
    bundle.save(made, tmp_path / "m", reference)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from calotype.learning import bundle\n"
        "folder = Path(sys.argv[1])\n"
        "print(bundle.without_weights(folder).embedding_size, bundle.reference(folder).embedding.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m"], capture_output=True, text=True, timeout=60)
    assert done.stdout == "64 (7, 64)\n", done.stderr


def test_a_file_that_is_no_reference_is_refused(made: Bundle, reference: Reference, tmp_path: Path) -> None:
    bundle.save(made, tmp_path / "m", reference)
    path, digests = tmp_path / "m" / "reference.safetensors", read_json(tmp_path / "m" / "digests.json")
    for content in (b"nothing", (tmp_path / "m" / "model.safetensors").read_bytes()):
        path.write_bytes(content)
        write_json(tmp_path / "m" / "digests.json", digests | {path.name: sha256_of(path)})
        with pytest.raises(DataError, match="not a bundle of this format"):
            bundle.reference(tmp_path / "m")


def test_equal_bundles_have_equal_bytes(made: Bundle, reference: Reference, tmp_path: Path) -> None:
    for name in ("m", "n"):
        bundle.save(made, tmp_path / name, reference)
    assert bundle.digest(tmp_path / "m") == bundle.digest(tmp_path / "n")
    for path in (tmp_path / "m").iterdir():
        assert path.read_bytes() == (tmp_path / "n" / path.name).read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "reference.safetensors"])
def test_one_changed_byte_is_refused_by_name(made: Bundle, reference: Reference, tmp_path: Path, name: str) -> None:
    bundle.save(made, tmp_path / "m", reference)
    content = bytearray((tmp_path / "m" / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / "m" / name).write_bytes(content)
    for read in (bundle.load, bundle.without_weights, bundle.reference):
        with pytest.raises(DataError, match=f"{name}: its SHA-256 is"):
            read(tmp_path / "m")


def test_a_missing_reference_is_refused_by_name(made: Bundle, reference: Reference, tmp_path: Path) -> None:
    bundle.save(made, tmp_path / "m", reference)
    (tmp_path / "m" / "reference.safetensors").unlink()
    for read in (bundle.without_weights, bundle.reference):
        with pytest.raises(DataError, match=r"reference\.safetensors: its SHA-256 is"):
            read(tmp_path / "m")


def test_a_missing_bundle_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no model here. Run `dvc repro`"):
        bundle.load(tmp_path)


def test_a_newer_format_is_refused_by_name(made: Bundle, tmp_path: Path) -> None:
    bundle.save(made, tmp_path / "m")
    rewrite(tmp_path / "m", format_version=4)
    with pytest.raises(DataError, match="format_version is 4"):
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
