"""Which engine answers for a bundle on this machine: what `calotype tune` measured here, or float32.

A choice is a file ``<digest of the bundle>.json``. It holds for the processor, the device and the library versions that
it was measured with; on any other the reference engine answers.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from calotype import machine
from calotype.files import read_json, write_json
from calotype.learning import engines
from calotype.learning.device import processor_flags
from calotype.learning.engine_names import REFERENCE


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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    engine: str
    batch_size: Annotated[int, Field(ge=1)]
    images: int
    per: str
    measured_on: dict[str, str]
    measured: tuple[Measured, ...]


def write(folder: Path, digest: str, choice: Choice) -> Path:
    """Keep a choice; the file's path."""
    path = folder / f"{digest}.json"
    write_json(path, choice.model_dump(mode="json"))
    return path


def read(folder: Path, digest: str, device: torch.device) -> tuple[Choice | None, str]:
    """The choice that holds here, or None; and why one that is there does not hold, in a line, or nothing."""
    path = folder / f"{digest}.json"
    if not path.is_file():
        return None, ""
    try:
        choice = Choice.model_validate(read_json(path))
    except (ValueError, ValidationError):
        return None, f"{path.name}: not a choice of this format; {REFERENCE} answers. Run `calotype tune`."
    if choice.engine not in engines.names(device):
        return None, f"{choice.engine} is no engine of {device.type}; {REFERENCE} answers. Run `calotype tune`."
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


def where(device: torch.device) -> dict[str, str]:
    """What a measurement hangs on."""
    flags = hashlib.sha256(" ".join(processor_flags()).encode()).hexdigest()[:8]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{machine.processor()} ({flags})"
    return {"processor": name, "device": device.type, "torch": torch.__version__, "onnxruntime": version("onnxruntime")}
