"""The program that watches the others: a server that hangs is ended, and supervisord starts it again.

supervisord itself sees only that a process has ended, not that it has stopped to answer. Every round also writes the
page of addresses, and lets flow runs that died go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from calotype.console import say
from calotype.errors import CalotypeError
from calotype.project import Project
from calotype.services import page, status
from calotype.services.resumption import Resumption
from calotype.services.status import Part
from calotype.services.supervisor import Supervisor

ROUND_S = 10.0
MISSES = 3
"""Rounds in a row without an answer after which a program hangs."""

START_S = 120
"""Seconds that a program gets for its start."""


@dataclass
class Watch:
    """Counts the rounds in which each program did not answer; a new process counts anew."""

    answered: set[tuple[str, int]] = field(default_factory=set)
    missed: dict[tuple[str, int], int] = field(default_factory=dict)

    def hung(self, parts: Iterable[Part]) -> list[Part]:
        """Take one round's answers; return the programs that hang."""
        running = {(part.name, part.pid): part for part in parts if part.state == "running"}
        self.answered |= {key for key, part in running.items() if part.is_well}
        silent = [
            key
            for key, part in running.items()
            if not part.is_well and (key in self.answered or part.uptime_s > START_S)
        ]
        self.missed = {key: self.missed.get(key, 0) + 1 for key in silent}
        return [running[key] for key, count in self.missed.items() if count >= MISSES]


def main() -> None:
    """Watch until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    project, watch = Project.find(), Watch()
    resumption = Resumption(Supervisor(project.services))
    while True:
        started = time.monotonic()
        found = status.read(project)
        if found.parts:
            page.write(project, found)
        for part in watch.hung(found.parts):
            say("watch", f"{part.name} (process {part.pid}) did not answer {MISSES} times: ended, to be started again")
            # Killed, for what hangs does not obey; and alone, for a worker's runs are well and go on without it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(part.pid, signal.SIGKILL)
        for part in found.parts:
            if part.name == "prefect" and part.is_well:
                # One that stops to answer is asked again in the next round.
                with contextlib.suppress(CalotypeError):
                    resumption.take_round(f"{part.address}/api")
        time.sleep(max(0.0, ROUND_S - (time.monotonic() - started)))


if __name__ == "__main__":
    main()
