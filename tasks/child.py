"""A command in a session of its own that never outlives its caller.

Ending DVC alone leaves the stage that it started running, and the next `dvc repro` would start a second one:
so the whole session is ended, whatever the reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

GRACE_S = 10.0
"""Seconds between asking processes to end and killing them; Prefect kills a cancelled flow after 30."""

_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the flow's process is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextmanager
def running(
    command: Sequence[str], *, folder: Path, environment: Mapping[str, str], grace_s: float = GRACE_S
) -> Iterator[subprocess.Popen[str]]:
    """Start a command; when the block ends, however it ends, every process of the command's session is gone.

    The command also gets SIGTERM when this process is killed outright (Linux).

    Parameters
    ----------
    command
        Program, by full path, and arguments.
    folder
        Where it runs.
    environment
        All of its environment.
    grace_s
        Seconds from SIGTERM to SIGKILL.

    Yields
    ------
    subprocess.Popen
        The process; its stdout is a stream of text lines that holds stderr too.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process, grace_s)


def members(session: int) -> list[psutil.Process]:
    """Processes of a session that still run; a zombie does not."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def _end(process: subprocess.Popen[str], grace_s: float) -> None:
    try:
        _ask_to_end(process, grace_s)
    finally:  # a second signal may interrupt the wait above: then there is no more asking
        for member in members(process.pid):
            _signal(member.kill)
        process.wait()
        if process.stdout:
            process.stdout.close()


def _ask_to_end(process: subprocess.Popen[str], grace_s: float) -> None:
    process.poll()
    for member in members(process.pid):
        _signal(member.terminate)
    deadline = time.monotonic() + grace_s
    while members(process.pid) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.05)


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()
