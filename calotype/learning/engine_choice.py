"""Which engine answers for a bundle on this machine: what `calotype tune` measured here, or float32.

A choice is a file ``<digest of the bundle>.json``. It holds for the processor, the device and the library versions that
it was measured with; on any other the reference engine answers.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype import machine
from calotype.files import read_json, replacing, write_json
from calotype.learning.engine_names import OF_GRAPH, REFERENCE, names


class Measured(BaseModel):
    """One engine at one batch size: how fast, and how far from float32."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    batch_size: int
    images_per_s: Annotated[float, Field(ge=0)]
    equal_labels: float
    largest_difference: float
    accepted: bool


class Choice(BaseModel):
    """The engine that answers, and how it was found.

    Attributes
    ----------
    images
        Test images on which the engines were compared.
    per
        Of what the rates are: seconds of one core, or of the clock on another device.
    measured_on
        Processor, device and versions.
    graph_sha256
        Digest of the graph that is kept beside the choice of an engine that runs one.
    format_version
        Graphs of version 1 gave no embeddings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2] = 2
    engine: str
    batch_size: Annotated[int, Field(ge=1)]
    images: int
    per: str
    measured_on: dict[str, str]
    measured: tuple[Measured, ...]
    graph_sha256: str = ""


def write(folder: Path, digest: str, choice: Choice, graph: bytes = b"") -> Path:
    """Keep a choice, and the graph of an engine that runs one; the choice's path."""
    path = folder / f"{digest}.json"
    if graph:
        with replacing(_graph_of(folder, digest)) as temporary:
            temporary.write_bytes(graph)
        choice = choice.model_copy(update={"graph_sha256": hashlib.sha256(graph).hexdigest()})
    write_json(path, choice.model_dump(mode="json"))
    return path


def graph(folder: Path, digest: str, choice: Choice | None) -> bytes | None:
    """The graph of a choice, if it has one that is there and undamaged; without it, torch makes one anew."""
    path = _graph_of(folder, digest)
    if choice is None or choice.engine not in OF_GRAPH or not path.is_file():
        return None
    kept = path.read_bytes()
    return kept if hashlib.sha256(kept).hexdigest() == choice.graph_sha256 else None


def read(folder: Path, digest: str, device: str) -> tuple[Choice | None, str]:
    """The choice that holds here, or None; and why one that is there does not hold, in a line, or nothing.

    ``device`` is the kind of device that will answer: ``cpu``, ``cuda`` or ``mps``.
    """
    path = folder / f"{digest}.json"
    if not path.is_file():
        return None, ""
    try:
        choice = Choice.model_validate(read_json(path))
    except (ValueError, ValidationError):
        return None, f"{path.name}: not a choice of this format; {REFERENCE} answers. Run `calotype tune`."
    if choice.engine not in names(device):
        return None, f"{choice.engine} is no engine of {device}; {REFERENCE} answers. Run `calotype tune`."
    here = where(device)
    kept = choice.measured_on
    differing = [f"{key} {kept.get(key)}, here {value}" for key, value in here.items() if kept.get(key) != value]
    if differing:
        found = f"the engine {choice.engine} was chosen on {'; '.join(differing)}"
        return None, f"{found}; {REFERENCE} answers. Run `calotype tune`."
    return choice, ""


def engine_of(choice: Choice | None) -> str:
    """The engine that answers."""
    return choice.engine if choice else REFERENCE


def where(device: str) -> dict[str, str]:
    """What a measurement hangs on."""
    versions = {name: version(name) for name in ("torch", "onnxruntime", "openvino")}
    return {"processor": _processor(device), "device": device} | versions


def _processor(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    features = hashlib.sha256(machine.processor_features().encode()).hexdigest()[:8]
    return f"{machine.processor()} ({features})"


def _graph_of(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.onnx"
