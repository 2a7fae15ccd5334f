"""Which processor works, with how many threads and at which precision."""

from __future__ import annotations

import torch

from calotype.errors import ParamsError


def choose_device(wanted: str, named: str = "train.device") -> torch.device:
    """Turn ``auto | cpu | cuda | mps`` into a device.

    Parameters
    ----------
    wanted
        One of these words.
    named
        Where it was said, for the error.

    Raises
    ------
    ParamsError
        If the wanted device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, present in there.items() if present))
    if not there.get(wanted):
        present = ", ".join(name for name, is_there in there.items() if is_there)
        raise ParamsError(f"{named}: found {wanted!r}, which this machine lacks; here there is {present}, or auto.")
    return torch.device(wanted)


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as told, or on ``auto`` where the processor has it in hardware."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and "avx512_bf16" in processor_flags()


def holds_resident(size: int, device: torch.device) -> bool:
    """Whether a set of so many bytes may lie on a GPU for the whole training: it leaves half of the free memory."""
    return device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] / 2


def processor_flags() -> tuple[str, ...]:
    """The processor's capabilities on which the bits of a CPU training depend, sorted."""
    return tuple(sorted(name for name, value in torch.cpu.get_capabilities().items() if value is True))
