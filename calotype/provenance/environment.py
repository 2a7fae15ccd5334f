"""What a training ran on: recorded, because equal weights need equal threads and processor flags."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from calotype.learning.device import processor_flags
from calotype.provenance import git_state

PACKAGES = ("calotype", "torch", "torchvision", "numpy", "pillow", "mlflow", "dvc", "prefect", "scikit-learn")


def describe(root: Path, device: str, threads: int) -> dict[str, Any]:
    """Git state, processor, versions, and the Prefect flow run and its reason where there are any."""
    git = git_state.read(root)
    return {
        "git_commit": git.commit,
        "git_dirty": git.dirty,
        "git_diff": git.diff,
        "git_diff_cut": git.cut,
        "device": device,
        "threads": threads,
        "processor_flags": list(processor_flags()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "flow_run_id": os.environ.get("CALOTYPE_FLOW_RUN_ID", ""),
        "flow_run_name": os.environ.get("CALOTYPE_FLOW_RUN_NAME", ""),
        "reason": os.environ.get("CALOTYPE_REASON", ""),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
