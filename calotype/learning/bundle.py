"""The bundle: a model's weights of record, and all that is needed to use them, in a folder whose digests must agree.

Nothing in it can run code, and nothing in it varies between equal trainings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from safetensors import SafetensorError

from calotype.errors import DataError
from calotype.files import read_json, replacing, sha256_of, write_json
from calotype.learning import reference as references
from calotype.learning.reference import Reference
from calotype.params import ImageParams, NetworkParams

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 3
READABLE = (1, 2, 3)
"""Version 1 knew no `abstain_below`: its models always answer. Version 2 had neither embedding nor reference."""

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
REFERENCE = "reference.safetensors"
DIGESTS = "digests.json"


@dataclass(frozen=True)
class Bundle:
    """A trained classifier, ready to be used anywhere.

    Parameters
    ----------
    network
        Which network, by name and widths.
    classes
        Class names, in the order of the outputs.
    image
        The form in which images reach the network.
    mean, std
        Statistics of the training images, one number a channel, for pixels between 0 and 1.
    temperature
        What logits are divided by before the softmax.
    weights
        The network's state, by tensor name; and the projection of an embedding, `embedding.PROJECTION`.
    trained_with
        Parameters and data digests of the training.
    abstain_below
        Answers of a lower confidence are withheld; 0: none, 1 or more: all.
    embedding_size
        Numbers of an embedding; 0: there is none.
    """

    network: NetworkParams
    classes: tuple[str, ...]
    image: ImageParams
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float
    weights: dict[str, torch.Tensor]
    trained_with: dict[str, Any]
    abstain_below: float = 0.0
    embedding_size: int = 0


def save(bundle: Bundle, folder: Path, reference: Reference | None = None) -> None:
    """Write a bundle, and its reference where there is one; equal bundles give equal bytes."""
    from safetensors.torch import save_file

    description = {
        "format_version": FORMAT_VERSION,
        "network": bundle.network.model_dump(),
        "classes": list(bundle.classes),
        "image": bundle.image.model_dump(),
        "mean": list(bundle.mean),
        "std": list(bundle.std),
        "temperature": bundle.temperature,
        "abstain_below": bundle.abstain_below,
        "embedding_size": bundle.embedding_size,
        "trained_with": bundle.trained_with,
    }
    with replacing(folder) as temporary:
        temporary.mkdir()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in bundle.weights.items()}
        save_file(weights, temporary / WEIGHTS)
        write_json(temporary / DESCRIPTION, description)
        if reference is not None:
            references.write(reference, temporary / REFERENCE)
        digests = {path.name: sha256_of(path) for path in temporary.iterdir()}
        write_json(temporary / DIGESTS, digests)


def load(folder: Path) -> Bundle:
    """Read a bundle; its digests are compared before a byte is parsed.

    Raises
    ------
    DataError
        If a file is missing or differs from its digest, or the format is newer than this version reads.
    """
    from safetensors.torch import load as parse_weights

    contents = _verified(folder, DESCRIPTION, WEIGHTS)
    try:
        return replace(_described(folder, contents), weights=parse_weights(contents[WEIGHTS]))
    except SafetensorError as error:
        raise _misfit(folder, error) from error


def without_weights(folder: Path) -> Bundle:
    """All of a bundle but its weights, whose bytes are compared and not parsed: that needs no torch.

    Raises
    ------
    DataError
        As for `load`.
    """
    return _described(folder, _verified(folder, DESCRIPTION))


def reference(folder: Path) -> Reference | None:
    """What the model answered for its validation images; None where the bundle is of an older format. Needs no torch.

    Raises
    ------
    DataError
        As for `load`.
    """
    contents = _verified(folder, DESCRIPTION, REFERENCE)
    _described(folder, contents)
    try:
        return references.parse(contents[REFERENCE]) if REFERENCE in contents else None
    except (SafetensorError, TypeError) as error:
        raise _misfit(folder, error) from error


def _described(folder: Path, contents: dict[str, bytes]) -> Bundle:
    description = json.loads(contents[DESCRIPTION])
    version = description.get("format_version")
    if version not in READABLE:
        raise DataError(f"{folder}: format_version is {version}; this calotype reads {FORMAT_VERSION}. Upgrade it.")
    try:
        return Bundle(
            network=NetworkParams.model_validate(description["network"]),
            classes=tuple(description["classes"]),
            image=ImageParams.model_validate(description["image"]),
            mean=tuple(description["mean"]),
            std=tuple(description["std"]),
            temperature=description["temperature"],
            weights={},
            trained_with=description["trained_with"],
            abstain_below=description["abstain_below"] if version > 1 else 0.0,
            embedding_size=description["embedding_size"] if version > 2 else 0,
        )
    except (KeyError, ValidationError) as error:
        raise _misfit(folder, error) from error


def _misfit(folder: Path, error: Exception) -> DataError:
    return DataError(f"{folder}: not a bundle of this format ({error}). Train again with `dvc repro`.")


def digest(folder: Path) -> str:
    """SHA-256 that stands for a whole bundle: that of its list of digests.

    Raises
    ------
    DataError
        If there is no bundle.
    """
    if not (folder / DIGESTS).is_file():
        raise DataError(f"{folder}: no model here. Run `dvc repro` to train one, or `dvc pull` to fetch it.")
    return sha256_of(folder / DIGESTS)


def _verified(folder: Path, *wanted: str) -> dict[str, bytes]:
    """Compare every file with its digest; the bytes of those that are wanted and there."""
    digest(folder)
    recorded = read_json(folder / DIGESTS)
    if not isinstance(recorded, dict) or set(recorded) - {REFERENCE} != {DESCRIPTION, WEIGHTS}:
        raise DataError(f"{folder / DIGESTS}: expected the digests of {DESCRIPTION} and {WEIGHTS}. Fetch it again.")
    contents: dict[str, bytes] = {}
    for name, expected in recorded.items():
        path = folder / name
        if name in wanted:
            # What is parsed are the very bytes that were hashed.
            contents[name] = path.read_bytes() if path.is_file() else b""
            found = hashlib.sha256(contents[name]).hexdigest()
        else:
            found = sha256_of(path) if path.is_file() else hashlib.sha256().hexdigest()
        if found != expected:
            raise DataError(
                f"{path}: its SHA-256 is {found[:12]}…, expected {expected[:12]}…: damaged or changed. "
                "Fetch it again (`dvc checkout --force`, `dvc pull`) or train again."
            )
    return contents
