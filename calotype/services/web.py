"""Ask a server by HTTP: its health, and JSON from Prefect's API."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from calotype.databases import without_password
from calotype.errors import CalotypeError

HEALTH_LIMIT_S = 5.0
"""Seconds within which a server that lives answers."""

TRIES = 2

BUSY = 503
BUSY_TRIES = 5

UNREACHED = (urllib.error.URLError, http.client.HTTPException, OSError, ValueError)
"""What an address raises that no server, or no server of this kind, answers at."""


def answers(url: str, limit_s: float = HEALTH_LIMIT_S) -> bool:
    """Whether something answers at ``url`` and is content."""
    try:
        with urllib.request.urlopen(url, timeout=limit_s) as reply:
            return bool(reply.status == 200)
    except UNREACHED:
        return False


def require(url: str, variable: str, address: str) -> None:
    """Make sure of a server that the environment names.

    Parameters
    ----------
    url
        Where it says whether it is well.
    variable
        The environment variable that names it.
    address
        What the variable holds.

    Raises
    ------
    CalotypeError
        If it does not answer twice in a row; within 15 seconds.
    """
    reason: object = ""
    for attempt in range(TRIES):
        time.sleep(attempt)
        try:
            with urllib.request.urlopen(url, timeout=HEALTH_LIMIT_S):
                return
        except UNREACHED as error:
            reason = getattr(error, "reason", error)
    raise CalotypeError(
        f"{variable} is {without_password(address)}: no server answers there ({reason}). Start it, correct the "
        "address, or unset the variable: `calotype up` then starts a server of its own."
    )


def ask(url: str, body: Any = None, method: str | None = None, limit_s: float = 30.0) -> Any:
    """Ask for JSON; POST where there is a body, GET where there is none.

    A server that is busy (503: Prefect, while its database is locked) is asked again, as Prefect's own client does.

    Returns
    -------
    Any
        The answer, None where it is empty.

    Raises
    ------
    CalotypeError
        If the server refuses, with its own words.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    for attempt in range(BUSY_TRIES):
        time.sleep(attempt)
        try:
            with urllib.request.urlopen(request, timeout=limit_s) as reply:
                text = reply.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            words = f"{error.code}: {error.read().decode(errors='replace')[:500]}"
            if error.code != BUSY:
                break
        except UNREACHED as error:
            raise CalotypeError(f"{url}: no answer ({getattr(error, 'reason', error)}).") from error
    raise CalotypeError(f"{url} refused ({words}).")
