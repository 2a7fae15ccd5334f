"""Ctrl-C and SIGTERM during a training: heeded at once, but never in the middle of a write."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Turns the first of the signals into a KeyboardInterrupt; further ones change nothing.

    A second signal is usual: dvc gets the first, too, and when it is gone the stage is told of that by another. It
    must not cut off the closing of what the first has stopped. And an exception that is raised in the middle of a
    write to a database leaves it locked for the writes that are to follow: `held` lets the write end first.

    Use it as a context, in the main thread.
    """

    def __init__(self) -> None:
        self._is_told = False
        self._holds = 0

    def __enter__(self) -> Self:
        self._previous = [signal.signal(number, self._heed) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in zip(SIGNALS, self._previous, strict=True):
            signal.signal(number, previous)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold a signal back until the body has ended.

        Raises
        ------
        KeyboardInterrupt
            At the end of the body, if a signal came meanwhile.
        """
        was_told = self._is_told
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        if self._is_told and not was_told:
            raise KeyboardInterrupt

    def _heed(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_told:
            return
        self._is_told = True
        if not self._holds:
            raise KeyboardInterrupt
