"""Signals during a training: heeded at once, held back while a write is under way, the second one without effect."""

from __future__ import annotations

import signal

import pytest

from calotype.learning.interruption import SIGNALS, Interruption


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_signal_during_a_write_interrupts_after_it() -> None:
    written = []

    def write() -> None:
        with Interruption() as interruption:
            with interruption.held():
                signal.raise_signal(signal.SIGTERM)
                written.append("all")
            written.append("too much")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert written == ["all"]


def test_the_error_of_a_write_is_not_hidden_by_a_signal() -> None:
    def fail() -> None:
        with Interruption() as interruption, interruption.held():
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_second_signal_does_not_cut_off_the_end() -> None:
    ended = []

    def work() -> None:
        with Interruption() as interruption:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGINT)
                with interruption.held():
                    signal.raise_signal(signal.SIGTERM)
                    ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert ended == [True]
