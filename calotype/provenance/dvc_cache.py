"""What dvc.lock names and where DVC keeps it: objects named by their MD5, a folder's list of files among them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from calotype.errors import DataError

FOLDER = ".dir"
"""Ends the MD5 of a folder's list of files."""


@dataclass(frozen=True)
class Output:
    """An output as dvc.lock names it.

    Attributes
    ----------
    stage, path
        Which stage made it, and its path in the project.
    md5
        Of the file, or of the folder's list of files; then it ends with `FOLDER`.
    """

    stage: str
    path: str
    md5: str


@dataclass(frozen=True)
class Member:
    """A file of a folder, by its path there and its MD5."""

    path: str
    md5: str


def locked(lock: str, *, where: str) -> list[Output]:
    """Outputs with an MD5 that a dvc.lock names.

    Parameters
    ----------
    lock
        Its text.
    where
        What an error calls it.

    Raises
    ------
    DataError
        If it is no such file.
    """
    try:
        stages: dict[str, Any] = (YAML(typ="safe").load(lock) or {}).get("stages", {})
        return [
            Output(stage, out["path"], out["md5"])
            for stage, content in stages.items()
            for out in content.get("outs", [])
            # An older DVC's hash is of text with other line ends: not the object's.
            if out.get("hash") == "md5" and "md5" in out
        ]
    except (YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{where}: cannot be read ({type(error).__name__}). Restore it: `git checkout dvc.lock`."
        ) from error


def uncached(pipeline: str) -> set[str]:
    """Paths that a dvc.yaml keeps out of the cache."""
    stages: dict[str, Any] = (YAML(typ="safe").load(pipeline) or {}).get("stages", {})
    kinds = ("outs", "metrics", "plots")
    entries = [entry for stage in stages.values() for kind in kinds for entry in stage.get(kind, [])]
    settings = [next(iter(entry.items())) for entry in entries if isinstance(entry, dict)]
    return {path for path, setting in settings if setting and setting.get("cache") is False}


def find(root: Path) -> Path | None:
    """Folder of the project's DVC cache, as every level of DVC's settings has it; None where there is no DVC."""
    if not (root / ".dvc").is_dir():
        return None
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    place = done.stdout.strip()
    return Path(place) if done.returncode == 0 and place else None


def object_path(cache: Path, md5: str) -> Path:
    """Where the object of an MD5 lies."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def members(cache: Path, md5: str) -> list[Member] | None:
    """Files of a folder, by its MD5; None where the cache lacks its list, or holds another one under the name."""
    path = object_path(cache, md5)
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5.removesuffix(FOLDER):
        return None
    return [Member(str(entry["relpath"]), str(entry["md5"])) for entry in json.loads(data)]


def absent(
    cache: Path, outputs: list[Output], listed: Callable[[Output], list[Member] | None] = lambda _: None
) -> Iterator[str]:
    """Files of some outputs that the cache lacks, by their paths in the project.

    Parameters
    ----------
    cache
        Folder of the DVC cache.
    outputs
        Which outputs.
    listed
        Asked for the files of a folder of which the cache lacks even the list.
    """
    for output in outputs:
        if not output.md5.endswith(FOLDER):
            if not object_path(cache, output.md5).is_file():
                yield output.path
            continue
        own = members(cache, output.md5)
        files = own if own is not None else listed(output)
        lost = [file.path for file in files or () if not object_path(cache, file.md5).is_file()]
        yield from (f"{output.path}/{path}" for path in lost)
        if own is None and not lost:
            yield f"{output.path} (the list of its files, {output.md5})"
