"""Judge one window of a real table of predictions: what `calotype monitor` does, MLflow and pictures aside.

Arguments: a bundle's folder, a place for the table, and how many rows. The table's rows are the reference's own,
shuffled and repeated with small noise; their ids are digests, as those of images are. Prints JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa

from calotype import delta, params
from calotype.learning import bundle
from calotype.learning.reference import Reference
from calotype.monitoring import judging, sampling, unusual
from calotype.predictions.tables import CHAMPION, PREDICTIONS

AT_ONCE = 50_000


def main(folder: str, place: str, rows: int) -> None:
    """Make the table in a process of its own, so that only the judging is measured; then judge."""
    import multiprocessing

    maker = multiprocessing.get_context("spawn").Process(target=make, args=(Path(folder), place, rows))
    maker.start()
    maker.join()
    wall, cpu = time.perf_counter(), time.process_time()
    judged = judge(Path(folder), place)
    found = {
        "rows": rows,
        "compared": len(judged.predictions.sample),
        "reference": len(judged.reference),
        "cpu_s": round(time.process_time() - cpu, 2),
        "wall_s": round(time.perf_counter() - wall, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(found))


def judge(folder: Path, place: str) -> judging.Judged:
    """Read, compare, look for unusual images."""
    values = params.load(Path(__file__).parents[2] / "params.yaml")
    table = delta.open_checked(place, PREDICTIONS)
    assert table is not None
    (span,) = sampling.waiting(table, values.name, {})
    judged = judging.judge(table, values, span, folder)
    assert isinstance(judged, judging.Judged), judged
    unusual.look(judged.reference.embedding, judged.predictions.sample.embedding)
    return judged


def make(folder: Path, place: str, rows: int) -> None:
    """Write the table, in commits of `AT_ONCE` rows."""
    reference = bundle.reference(folder)
    assert reference is not None
    classes = bundle.without_weights(folder).classes
    name = params.load(Path(__file__).parents[2] / "params.yaml").name
    random = np.random.default_rng(0)
    delta.create(place, PREDICTIONS, "predictions", "")
    for start in range(0, rows, AT_ONCE):
        table = delta.open_checked(place, PREDICTIONS)
        assert table is not None
        count = min(AT_ONCE, rows - start)
        drawn = random.integers(len(reference.labels), size=count)
        assert delta.append(table, PREDICTIONS, _rows(reference, classes, name, drawn, start, random))


def _rows(
    reference: Reference,
    classes: tuple[str, ...],
    name: str,
    drawn: np.ndarray,
    start: int,
    random: np.random.Generator,
) -> pa.Table:
    count = len(drawn)
    embedding = reference.embedding[drawn].astype(np.float32)
    embedding += random.normal(0, 0.05 * embedding.std(), embedding.shape).astype(np.float32)
    shares = reference.probabilities[drawn]
    keys = pa.array(np.tile(classes, count))
    offsets = np.arange(0, count * len(classes) + 1, len(classes), dtype=np.int32)
    same = {
        "role": CHAMPION, "abstained": False, "model_name": name, "model_version": 1, "run_id": "", "engine": "float32",
        "batch_id": "", "predicted_at": datetime.now(UTC),
    }  # fmt: skip
    columns = {
        "image_id": [sha256(str(start + place).encode()).hexdigest() for place in range(count)],
        "path": [f"{start + place}.png" for place in range(count)],
        "label": [classes[place] for place in shares.argmax(axis=1)],
        "confidence": shares.max(axis=1),
        "probabilities": pa.MapArray.from_arrays(offsets, keys, pa.array(shares.ravel())),
        "embedding": pa.ListArray.from_arrays(
            np.arange(0, embedding.size + 1, embedding.shape[1], dtype=np.int32), pa.array(embedding.ravel())
        ),
    }
    columns |= {
        name: reference.appearance[drawn, place] for place, name in enumerate(("mean", "contrast", "sharpness"))
    }
    columns |= {name: [value] * count for name, value in same.items()}
    return pa.table([pa.array(columns[one.name]).cast(one.type) for one in PREDICTIONS.schema], PREDICTIONS.schema)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
