"""supervisord: real, with a small program, in folders of awkward names."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from calotype.services.supervisor import Supervisor

PROGRAMS = {"server": "http.server 0 --bind 127.0.0.1", "worker": "http.server 0 --bind 127.0.0.1"}


@pytest.fixture(params=["plain", "a b;c #d %e 'f", "deep" + "/folder" * 20])
def supervisor(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Supervisor]:
    root = tmp_path / request.param
    (root / "logs").mkdir(parents=True)
    made = Supervisor(root / ".services")
    made.start(PROGRAMS, dict(os.environ) | {"CALOTYPE_ROOT": str(root)})
    yield made
    made.stop("worker")


def until_running(supervisor: Supervisor, *names: str) -> None:
    deadline = time.monotonic() + 20
    while {supervisor.states()[name] for name in names} != {"RUNNING"} and time.monotonic() < deadline:
        time.sleep(0.1)
    assert {supervisor.states()[name] for name in names} == {"RUNNING"}


def test_programs_start_on_demand_and_nothing_is_left_after_stop(supervisor: Supervisor) -> None:
    assert supervisor.states() == {"server": "STOPPED", "worker": "STOPPED"}
    supervisor.start_program("server")
    supervisor.start_program("worker")
    until_running(supervisor, "server", "worker")
    assert psutil.Process(supervisor.pid("worker")).environ()["CALOTYPE_SERVICES"] == str(supervisor.folder)
    assert len(supervisor.marked()) == 3
    assert supervisor.stop("worker")
    assert supervisor.marked() == []
    assert supervisor.process() is None
    assert not supervisor.socket.exists()
    assert not supervisor.stop("worker")


@pytest.mark.parametrize("supervisor", ["plain"], indirect=True)
def test_what_a_killed_supervisor_leaves_is_found_and_ended(supervisor: Supervisor) -> None:
    supervisor.start_program("server")
    until_running(supervisor, "server")
    top = supervisor.process()
    assert top
    top.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while supervisor.process() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert supervisor.process() is None
    assert len(supervisor.marked()) == 1
    assert supervisor.stop("worker")
    assert supervisor.marked() == []


@pytest.mark.parametrize("supervisor", ["plain"], indirect=True)
def test_a_process_id_that_another_program_got_is_not_the_supervisor(supervisor: Supervisor) -> None:
    supervisor.stop("worker")
    (supervisor.folder / "supervisord.pid").write_text(str(os.getpid()))
    assert supervisor.process() is None


@pytest.mark.parametrize("supervisor", ["plain"], indirect=True)
def test_a_program_that_ends_is_started_again(supervisor: Supervisor) -> None:
    supervisor.start_program("server")
    until_running(supervisor, "server")
    first = supervisor.pid("server")
    time.sleep(1.2)
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 15
    while supervisor.pid("server") in (0, first) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert supervisor.pid("server") not in (0, first)


@pytest.mark.parametrize("supervisor", ["plain"], indirect=True)
def test_the_configuration_holds_no_path_of_the_machine(supervisor: Supervisor) -> None:
    text = supervisor.config.read_text()
    assert str(supervisor.folder) not in text
    assert sys.prefix not in text
