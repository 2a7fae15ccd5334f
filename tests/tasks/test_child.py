"""A command in a session of its own never outlives its caller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.child import members, running

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"


def wait_for(holds: Callable[[], bool], limit_s: float = 10) -> bool:
    deadline = time.monotonic() + limit_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def test_output_and_errors_arrive_line_by_line_in_order(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo one; echo two >&2; pwd"]
    with running(command, folder=tmp_path, environment={}) as process:
        lines = [line.rstrip("\n") for line in process.stdout or ()]
    assert lines == ["one", "two", str(tmp_path)]
    assert process.returncode == 0


def test_bytes_that_are_no_text_do_not_stop_the_stream(tmp_path: Path) -> None:
    with running(["/bin/sh", "-c", r"printf '\377\n'; echo after"], folder=tmp_path, environment={}) as process:
        assert [line.strip() for line in process.stdout or ()] == ["�", "after"]


def test_an_error_in_the_block_ends_the_command_and_its_background_children(tmp_path: Path) -> None:
    command = ["/bin/bash", "-mc", "sleep 60 & sleep 60 & echo started; wait"]  # -m: each in a group of its own
    seen: list[int] = []

    def fail_in_the_middle() -> None:
        with running(command, folder=tmp_path, environment=os.environ) as process:
            assert process.stdout
            while process.stdout.readline() != "started\n":  # where there is no terminal, bash says so first
                pass
            seen.extend([process.pid, len(members(process.pid))])
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        fail_in_the_middle()
    assert seen[1] == 3
    assert members(seen[0]) == []


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    started = time.monotonic()
    command = [sys.executable, "-c", STUBBORN]
    with running(command, folder=tmp_path, environment={}, grace_s=0.5) as process:
        assert process.stdout
        assert process.stdout.readline() == "on\n"
    assert process.returncode == -signal.SIGKILL
    assert 0.5 <= time.monotonic() - started < 50


def test_a_background_child_of_a_command_that_ended_is_ended_too(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "sleep 60 > /dev/null 2>&1 & echo done"]
    with running(command, folder=tmp_path, environment=os.environ) as process:
        assert [line.strip() for line in process.stdout or ()] == ["done"]
    assert members(process.pid) == []


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_the_command_ends_when_its_caller_is_killed_outright() -> None:
    code = (
        "import os, pathlib\nfrom tasks.child import running\n"
        "with running(['/bin/sleep', '60'], folder=pathlib.Path('/'), environment={}) as process:\n"
        "    print(process.pid, flush=True)\n    process.wait()\n"
    )
    repository = Path(__file__).parents[2]
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert caller.stdout
    session = int(caller.stdout.readline())
    assert wait_for(lambda: any(member.name() == "sleep" for member in members(session)))
    caller.kill()
    caller.wait()
    caller.stdout.close()
    assert wait_for(lambda: members(session) == [])
