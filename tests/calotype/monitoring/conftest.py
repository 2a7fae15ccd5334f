"""A table of predictions with rows that nobody predicted: sampling and windows need no model."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from calotype import exactly_once
from calotype.predictions.tables import BY_CONTENT, CHAMPION

Night = Callable[..., DeltaTable]


@pytest.fixture
def night(tmp_path: Path) -> Night:
    """A function that appends rows of one version, numbered from ``first``, and returns the table."""

    def append(
        first: int, count: int, *, version: int = 1, name: str = "m", role: str = CHAMPION, dims: int = 3
    ) -> DeltaTable:
        numbers = np.arange(first, first + count)
        rows = [
            {
                "image_id": sha256(str(number).encode()).hexdigest(),
                "role": role,
                "path": f"{number}.png",
                "label": "ab"[number % 2],
                "confidence": number / 1e6,
                "abstained": False,
                "probabilities": {"a": 0.5, "b": 0.5},
                "model_name": name,
                "model_version": version,
                "run_id": "",
                "engine": "float32",
                "embedding": [float(number)] * dims if dims else None,
                "mean": 0.1,
                "contrast": 0.2,
                "sharpness": 0.3,
                "batch_id": f"{first}",
            }
            for number in numbers.tolist()
        ]
        batches = pa.Table.from_pylist(rows, BY_CONTENT.spooled).to_batches()
        place = str(tmp_path / "predictions")
        assert exactly_once.append(place, BY_CONTENT, lambda: batches).appended == count
        return DeltaTable(place)

    return append
