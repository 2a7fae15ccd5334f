"""Become a server: ``python -m calotype.services.program mlflow server …``.

MLflow's server is two processes. Where the first is killed, the second keeps the port, and the next server could not
start; so what an earlier one left is ended first.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from calotype.services.supervisor import MARK, Supervisor

NAME = "SUPERVISOR_PROCESS_NAME"
"""Environment variable by which supervisord tells a program, and all that it starts, its name."""


def main() -> None:
    """End what is left of this program, then become its module, named by the arguments."""
    Supervisor(Path(os.environ[MARK])).end_leftovers(NAME, os.environ[NAME])
    os.execv(sys.executable, [sys.executable, "-P", "-m", *sys.argv[1:]])


if __name__ == "__main__":
    main()
