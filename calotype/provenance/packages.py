"""Which packages are others than those of a training: its lock, and the versions it wrote down itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import distributions

PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;\\]+)(?P<rest>.*)", re.MULTILINE)


def installed() -> dict[str, str]:
    """Name → version of every package of this environment."""
    found = ((one.metadata["Name"], one.version) for one in distributions())
    return {_normal(name): version for name, version in found if name}


def differing(lock: str, recorded: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """Packages that differ, in words, sorted by name.

    Parameters
    ----------
    lock
        Text of the training's requirements.lock; may be empty. A package with a marker may be absent.
    recorded
        Versions that the training found installed; they count for more than the lock.
    present
        Versions that are installed now.
    """
    pins = {name: (versions, needed) for name, versions, needed in _pins(lock)}
    pins |= {_normal(name): ({version}, True) for name, version in recorded.items() if version}
    return sorted(
        f"{name} {present.get(name, 'absent')} (was {' or '.join(sorted(versions))})"
        for name, (versions, needed) in pins.items()
        if present.get(name) not in versions and (needed or name in present)
    )


def _pins(lock: str) -> Iterator[tuple[str, set[str], bool]]:
    """Name, versions (a lock for several platforms may name two), and whether the package is needed everywhere."""
    versions: dict[str, set[str]] = {}
    marked: set[str] = set()
    for match in PIN.finditer(lock):
        name = _normal(match["name"])
        versions.setdefault(name, set()).add(match["version"])
        if ";" in match["rest"]:
            marked.add(name)
    yield from ((name, found, name not in marked) for name, found in versions.items())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
