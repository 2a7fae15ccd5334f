"""Ports on which servers of this project listen: chosen so that two that start at once never share one."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from calotype.errors import CalotypeError

PORTS_TRIED = 200


@contextlib.contextmanager
def claimed(first: int) -> Iterator[int]:
    """The first port from ``first`` on that nothing listens on and nobody else has claimed.

    A server takes seconds to listen, and until then its port looks free to every other project of this user: the
    claim, a lock in the temporary folder, is to be held until it listens.

    Raises
    ------
    CalotypeError
        If none of 200 ports is free.
    """
    folder = Path(tempfile.gettempdir()) / f"calotype-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in range(first, first + PORTS_TRIED):
        claim = FileLock(folder / f"{port}.lock")
        try:
            claim.acquire(timeout=0)
        except Timeout:
            continue
        try:
            if _is_free(port):
                yield port
                return
        finally:
            claim.release()
    raise CalotypeError(f"no free port from {first} to {first + PORTS_TRIED - 1}. End a program that listens there.")


def listens(pid: int, port: int) -> bool:
    """Whether a process, or one that it started, listens on a port: another's server may answer there as well."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return any(_listens(member, port) for member in [process, *process.children(recursive=True)])
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def _listens(process: psutil.Process, port: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in process.net_connections("tcp")
        )
    return False
