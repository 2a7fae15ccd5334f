"""A training's state after an epoch, in one safetensors file, valid for one set of parameters, data and code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from calotype.files import replacing
from calotype.learning.training import Epoch, State


def save(path: Path, key: str, state: State, extra: dict[str, str]) -> None:
    """Write a state atomically.

    Parameters
    ----------
    path
        The one checkpoint file of the project.
    key
        Digest of everything that makes the training what it is.
    state
        Where it stands.
    extra
        What else a resumed training needs: the MLflow run, the idempotency key.
    """
    tensors: dict[str, Tensor] = {f"model/{name}": tensor for name, tensor in state.weights.items()}
    if state.best_weights is not state.weights:
        tensors |= {f"best/{name}": tensor for name, tensor in state.best_weights.items()}
    scalars: dict[str, Any] = {}
    for index, slots in state.optimizer.items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value.detach().cpu().contiguous()
            else:
                scalars[f"{index}/{name}"] = value
    header = {
        "key": key,
        "next_epoch": state.next_epoch,
        "best_epoch": state.best_epoch,
        "history": [asdict(epoch) for epoch in state.history],
        "scalars": scalars,
        "extra": extra,
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps(header)})


def load(path: Path, key: str) -> tuple[State, dict[str, str]] | None:
    """Read the state back, or nothing where there is none for this key: then it is of another training, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("state", "{}"))
            if header.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except (OSError, SafetensorError, ValueError):
        return None
    weights = _below("model/", tensors)
    state = State(
        next_epoch=header["next_epoch"],
        best_epoch=header["best_epoch"],
        weights=weights,
        best_weights=_below("best/", tensors) or weights,
        optimizer=_optimizer(_below("optimizer/", tensors) | header["scalars"]),
        history=[Epoch(**row) for row in header["history"]],
    )
    return state, header["extra"]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer(flat: dict[str, Any]) -> dict[int, dict[str, Any]]:
    slots: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        index, _, slot = name.partition("/")
        slots.setdefault(int(index), {})[slot] = value
    return slots
