"""Canonical JSON, by whose bytes evidence is known: equal documents give equal bytes, and an equal digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def encoded(document: Mapping[str, Any]) -> bytes:
    """JSON with sorted keys and no spaces."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of the document's canonical JSON, in hexadecimal."""
    return hashlib.sha256(encoded(document)).hexdigest()
