"""Keep servers running: supervisord, its configuration, and the end of everything that it started.

The configuration holds no path of this machine: supervisord takes them from its environment or from the folder that
it starts in, so that no character in a path can be mistaken for configuration.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from calotype.errors import CalotypeError
from calotype.files import write_text

LONGEST_SOCKET = 90
"""Bytes of a Unix socket's path: the system takes 107, and supervisord appends its process id while it makes one."""

HEAD = """\
; Written by `calotype up`.
[unix_http_server]
file=%(ENV_CALOTYPE_SOCKET)s
chmod=0700

[supervisord]
logfile=../logs/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile=supervisord.pid
childlogdir=../logs
{user}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://%(ENV_CALOTYPE_SOCKET)s
"""

PROGRAM = """
[program:{name}]
command="%(ENV_CALOTYPE_PYTHON)s" -P -m {command}
directory=%(ENV_CALOTYPE_ROOT)s
priority={priority}
autostart=false
autorestart=true
startsecs=1
startretries=3
stopasgroup=true
killasgroup=true
stopwaitsecs=15
redirect_stderr=true
stdout_logfile=../logs/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
"""

MARK = "CALOTYPE_SERVICES"
"""Environment variable that marks each process with the folder of state that it belongs to."""

STOP_LIMIT_S = 60.0
RUN_LIMIT_S = 20.0
"""Seconds that a flow run gets to end its stage and to report it."""

FAILED = ("BACKOFF", "FATAL", "EXITED", "UNKNOWN")


@dataclass(frozen=True)
class Program:
    """A program that supervisord keeps running, its state in supervisord's words; pid 0 where it does not run."""

    name: str
    state: str
    pid: int
    uptime_s: int


@dataclass(frozen=True)
class Supervisor:
    """supervisord for one folder of state."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "supervisord.conf"

    @property
    def socket(self) -> Path:
        """The control socket; in a short temporary folder where the state's own path is too long for one."""
        link = self.folder / "socket"
        folder = link.resolve() if link.is_symlink() else self.folder
        return folder / "supervisor.sock"

    def start(self, programs: Mapping[str, str], environment: Mapping[str, str]) -> None:
        """Start supervisord with these programs (name → arguments of ``python -m``), none of them running yet.

        Parameters
        ----------
        programs
            In the order of their start; they end in the reverse order.
        environment
            What supervisord and all programs get; ``CALOTYPE_ROOT`` among it.
        """
        self._place_socket()
        user = "user=root\n" if os.getuid() == 0 else ""  # else supervisord warns that it runs as root
        sections = [
            PROGRAM.format(name=name, command=command, priority=10 * order)
            for order, (name, command) in enumerate(programs.items(), 1)
        ]
        write_text(self.config, HEAD.format(user=user) + "".join(sections))
        given = dict(environment) | {
            "CALOTYPE_SOCKET": str(self.socket),
            "CALOTYPE_PYTHON": sys.executable,
            MARK: str(self.folder),
        }
        command = [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(self.config)]
        done = subprocess.run(command, env=given, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise CalotypeError(f"supervisord did not start: {(done.stderr or done.stdout).strip()}")
        wait_until(lambda: self.process() is not None and self.socket.exists(), 15, "supervisord to answer")

    def process(self) -> psutil.Process | None:
        """The running supervisord of this folder, or None; a process id that now belongs to another is not it."""
        try:
            process = psutil.Process(int((self.folder / "supervisord.pid").read_text()))
            is_ours = str(self.config) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, psutil.Error):
            return None
        return process if is_ours else None

    def start_program(self, name: str) -> None:
        """Start one program, without waiting for it."""
        self._call("startProcess", name, False)

    def states(self) -> dict[str, str]:
        """State of each program in supervisord's words: ``{"worker": "RUNNING", ...}``."""
        return {info["name"]: info["statename"] for info in self._call("getAllProcessInfo")}

    def programs(self) -> list[Program]:
        """Each program as supervisord sees it; none where supervisord does not run."""
        if not self.process():
            return []
        found = self._call("getAllProcessInfo")
        return [
            Program(
                name=info["name"],
                state=info["statename"],
                pid=int(info["pid"]),
                uptime_s=max(0, info["now"] - info["start"]) if info["statename"] == "RUNNING" else 0,
            )
            for info in found
        ]

    def pid(self, name: str) -> int:
        """Process id of a program; 0 when it does not run."""
        return int(self._call("getProcessInfo", name)["pid"])

    def stop(self, first: str, *, patience_s: float = 6.0) -> bool:
        """End program ``first`` and its flow runs, then the others and supervisord; return whether anything ran.

        A worker that got SIGTERM drains, and lingers for minutes: a second SIGTERM ends it.
        """
        if not self.marked():
            return False
        with contextlib.suppress(OSError, psutil.Error, xmlrpc.client.Error):
            self._end_first(first, patience_s)
        if process := self.process():
            _signal(process.terminate)
            _until(lambda: self.process() is None, STOP_LIMIT_S)
        self._sweep()
        self._remove_socket()
        return True

    def marked(self) -> list[psutil.Process]:
        """Every process that `start` started, however indirectly: each carries this folder in its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == str(self.folder) and _runs(process):
                    found.append(process)
        return found

    def end_leftovers(self, variable: str, value: str) -> bool:
        """End what carries this in its environment, the process that asks spared; return whether anything did.

        A program whose first process was killed leaves others, a flow run may stand still.
        """
        own = os.getpid()
        left = [process for process in self.marked() if process.pid != own and _carries(process, variable, value)]
        for process in left:
            _signal(process.kill)
        _until(lambda: not any(_runs(process) for process in left), 5)
        return bool(left)

    def _end_first(self, name: str, patience_s: float) -> None:
        pid = self.pid(name)
        if not pid:
            return
        # A worker that ends kills its runs before they can report how they ended, and one that goes on starts the
        # next: so it stands still while they end.
        os.kill(pid, signal.SIGSTOP)
        try:
            _end_children(pid)
        finally:
            os.kill(pid, signal.SIGCONT)
        self._call("stopProcess", name, False)
        if not _until(lambda: not _is_alive(pid), patience_s):
            os.kill(pid, signal.SIGTERM)
            _until(lambda: not _is_alive(pid), patience_s)

    def _sweep(self) -> None:
        """End what is left, supervisord's orphans say: first asked, then killed."""
        for process in self.marked():
            _signal(process.terminate)
        if not _until(lambda: not self.marked(), 10):
            for process in self.marked():
                _signal(process.kill)
            _until(lambda: not self.marked(), 5)

    def _call(self, method: str, *arguments: Any) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def _place_socket(self) -> None:
        self._remove_socket()
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(self.folder / "supervisor.sock")) > LONGEST_SOCKET:
            (self.folder / "socket").symlink_to(tempfile.mkdtemp(prefix="calotype-"))

    def _remove_socket(self) -> None:
        link = self.folder / "socket"
        if link.is_symlink():
            shutil.rmtree(link.resolve(), ignore_errors=True)
            link.unlink()


def _end_children(pid: int) -> None:
    children = psutil.Process(pid).children()
    for child in children:
        _signal(child.terminate)
    _until(lambda: not any(_runs(child) for child in children), RUN_LIMIT_S)


def _carries(process: psutil.Process, variable: str, value: str) -> bool:
    try:
        return process.environ().get(variable) == value
    except (psutil.Error, OSError):
        return False


def _is_alive(pid: int) -> bool:
    try:
        return _runs(psutil.Process(pid))
    except psutil.Error:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(send: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.Error):
        send()


def _until(holds: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held


def wait_until(holds: Callable[[], bool], limit_s: float, what: str) -> None:
    """Wait until a claim holds.

    Raises
    ------
    CalotypeError
        If it does not within ``limit_s`` seconds.
    """
    if not _until(holds, limit_s):
        raise CalotypeError(f"waited {limit_s:.0f} s for {what}. See logs/, then try again.")
