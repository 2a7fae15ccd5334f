"""Whether torchrun started this process as one of several that train together, by the variables that it sets."""

from __future__ import annotations

import os

OWN_RUN = "calotype"
"""Name of a run of processes that the stage itself starts."""


def count() -> int:
    """How many were started together; 0 if torchrun started none."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def is_first() -> bool:
    """Whether this is the one that writes, logs and speaks; alone, it is."""
    return not count() or os.environ["RANK"] == "0"


def has_stage_above() -> bool:
    """Whether another process holds the stage of which this one is a part."""
    return not is_first() or (bool(count()) and os.environ["TORCHELASTIC_RUN_ID"] == OWN_RUN)
