"""Sharing data and models through DVC's remote, where one is configured; DVC is a command here, never imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from calotype.console import say
from calotype.errors import CalotypeError

REMOTE_URL = re.compile(r"remote\..+\.url")


def push(root: Path) -> str:
    """Push what dvc.lock names to the default remote.

    Returns
    -------
    str
        One line: what was pushed, or why nothing was.

    Raises
    ------
    CalotypeError
        If a remote is configured and the push fails.
    """
    if not (root / ".dvc").is_dir():
        return "no DVC repository here: data and model stay on this machine. Run `dvc init`"
    settings = dict(line.split("=", 1) for line in _dvc(root, "config", "--list").stdout.splitlines() if "=" in line)
    remotes = [key.removeprefix("remote.").removesuffix(".url") for key in settings if REMOTE_URL.fullmatch(key)]
    if not remotes:
        return "no DVC remote is configured: data and model stay on this machine. Run `dvc remote add -d NAME URL`"
    default = settings.get("core.remote")
    if not default:
        return f"no default among the DVC remotes {', '.join(remotes)}: nothing pushed. Run `dvc remote default NAME`"
    say("register", f"pushing data and model to the DVC remote {default}")
    done = _dvc(root, "push", "--quiet")
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise CalotypeError(f"`dvc push` to the remote {default} failed: {reason[-1]}")
    return f"data and model are in the DVC remote {default}"


def _dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", check=False)
