"""The machine that runs this process, for those who need not import torch."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")

GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What a machine under Linux has where torch can use a GPU: of NVIDIA, of AMD, under WSL."""


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """What the processor calls itself."""
    return _said_of_processor("model name") or platform.processor() or platform.machine()


def processor_features() -> str:
    """What the processor can do, as Linux lists it; empty elsewhere."""
    return _said_of_processor("flags") or _said_of_processor("Features")


def may_have_gpu() -> bool:
    """Whether it is worth asking torch, which takes seconds to import, for a GPU."""
    return sys.platform != "linux" or any(Path(device).exists() for device in GPU_DEVICES)


def trim_memory() -> None:
    """Give back what C's allocator keeps free: NumPy's arrays leave much, which Arrow's and polars' cannot take."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)


def _said_of_processor(key: str) -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
