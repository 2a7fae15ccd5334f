"""Which test split was scored, in one word: equal images with equal labels, equal digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def split_digest(image_ids: Sequence[str], labels: Sequence[str]) -> str:
    """SHA-256, in hexadecimal, over the sorted lines ``image_id label`` of a test split; the order does not matter."""
    lines = sorted(f"{image_id} {label}\n" for image_id, label in zip(image_ids, labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
