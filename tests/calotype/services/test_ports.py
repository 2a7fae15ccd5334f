"""Ports: taken, claimed, and whose server listens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from calotype.errors import CalotypeError
from calotype.services import ports

HOLD = """
import sys
from calotype.services import ports
with ports.claimed(int(sys.argv[1])) as port:
    print(port, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_is_taken_is_passed_over(taken: int) -> None:
    with ports.claimed(taken) as port:
        assert port > taken


def test_a_port_that_another_process_has_claimed_is_passed_over(taken: int) -> None:
    command = [sys.executable, "-c", HOLD, str(taken)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        claimed = int(other.stdout.readline())
        with ports.claimed(taken) as port:
            assert port > claimed
        other.communicate("")
    with ports.claimed(taken) as port:
        assert port == claimed


def test_a_claim_ends_with_an_error_too(taken: int) -> None:
    with pytest.raises(ZeroDivisionError), ports.claimed(taken) as first:
        raise ZeroDivisionError
    with ports.claimed(taken) as second:
        assert second == first


def test_no_free_port_is_an_error_that_names_the_range(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(ports, "PORTS_TRIED", 1)
    with pytest.raises(CalotypeError, match=f"no free port from {taken} to {taken}"), ports.claimed(taken):
        pass


def test_a_process_listens_on_its_own_port_alone(taken: int) -> None:
    assert ports.listens(os.getpid(), taken)
    assert not ports.listens(os.getpid(), taken + 1)
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as other:
        assert not ports.listens(other.pid, taken)
        other.communicate(b"")
    assert not ports.listens(other.pid, taken)


def test_a_port_on_which_a_child_listens_is_its_parents_too() -> None:
    child = (
        "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", parent], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert ports.listens(process.pid, port)
        process.communicate("")
