"""Wait for what servers and workers do in their own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 2.0
"""Times that a limit is stretched: the limits are those of a quiet machine, and several tests share two cores."""


def until(holds: Callable[[], Any], limit_s: float) -> Any:
    """Ask until it holds, or the time is over; return the last answer."""
    deadline = time.monotonic() + PATIENCE * limit_s
    while not (found := holds()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found
