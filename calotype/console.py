"""Words for a person: progress on stderr, as a bar on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from calotype import processes

Item = TypeVar("Item")

LINE_EVERY_S = 10.0
"""Seconds between two progress lines where no terminal shows a bar."""


def say(prefix: str, text: str) -> None:
    """Print one line to stderr, after the stage or verb that speaks; of several processes the first speaks for all."""
    if processes.is_first():
        print(f"{prefix}: {text}", file=sys.stderr, flush=True)


def track(items: Iterable[Item], *, prefix: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items and show how far the work is.

    Parameters
    ----------
    items
        What to go through.
    prefix
        The stage or verb that works.
    unit
        What is counted, in the plural: ``images``.
    total
        How many there will be, if known.
    """
    if not processes.is_first():
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, prefix, unit, total)
    else:
        yield from _lines(items, prefix, unit, total)


def _bar(items: Iterable[Item], prefix: str, unit: str, total: int | None) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=f"{prefix}:")


def _lines(items: Iterable[Item], prefix: str, unit: str, total: int | None) -> Iterator[Item]:
    start = shown = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown >= LINE_EVERY_S:
            shown = now
            of = f" of {total:,}" if total else ""
            say(prefix, f"{done:,}{of} {unit}, {done / (now - start):,.0f}/s")
