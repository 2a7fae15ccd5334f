"""Does a version, fetched from the registry, still answer in a process that knows nothing but how to predict?

``python -m calotype.releases.golden`` is that process. It reads a request from stdin (a JSON object) and answers with
one on stdout: a bundle is loaded, the golden images that evaluation logged with the version are decoded and classified,
and the probabilities are compared with the logged ones. Its imports take seconds, so it can be started before the
request is known.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import calotype
from calotype.learning.engine_names import REFERENCE, TOLERANCES

if TYPE_CHECKING:
    import pyarrow as pa

    from calotype.learning.bundle import Bundle
    from calotype.params import Params

TRAINING_CODE = ("calotype.learning.training", "calotype.learning.augment", "calotype.learning.optimization")
PATIENCE_S = 300
NONE_LOGGED = "no golden images are logged with it: an older calotype evaluated it"

Fresh = subprocess.Popen[str]


@dataclass(frozen=True)
class Answer:
    """What the fresh process found.

    Parameters
    ----------
    loads
        Whether the bundle was loaded and answered with numbers.
    images
        How many golden images were compared.
    largest_difference
        Of a probability from the logged one.
    problem
        What is wrong, or empty.
    engine
        Which answered: the one that `calotype tune` chose here.
    """

    loads: bool
    images: int
    largest_difference: float
    problem: str = ""
    engine: str = REFERENCE

    @property
    def tolerance(self) -> float:
        """The largest difference allowed."""
        return TOLERANCES[self.engine]

    @property
    def usable(self) -> bool:
        """Whether the version answers as logged, or answers and nothing was logged."""
        return self.loads and self.problem in ("", NONE_LOGGED)

    def summary(self) -> str:
        """One line for a person."""
        if self.problem:
            return f"in a fresh process: {self.problem}"
        return (
            f"in a fresh process it reproduces {self.images} golden images: probabilities differ by at most "
            f"{self.largest_difference:.1e} (allowed: {self.tolerance:g})"
        )


@contextmanager
def fresh_process() -> Iterator[Fresh]:
    """Start the process, which imports while the caller goes on; it does not outlive the block."""
    # The package that runs here, not one that is installed beside it.
    root = str(Path(calotype.__file__).parents[1])
    paths = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "calotype.releases.golden"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        with process:
            process.wait()


def send(process: Fresh, bundle_folder: Path, golden: Path | None, params: Params, *, engines: Path) -> None:
    """Send the process its one request; the files must stay until it has answered.

    Parameters
    ----------
    process
        From `fresh_process`.
    bundle_folder
        The version's bundle.
    golden
        The golden images logged with it, if there are any.
    params
        How to classify.
    engines
        Folder of what `calotype tune` chose.
    """
    request = {
        "engines": str(engines),
        "bundle": str(bundle_folder),
        "golden": str(golden) if golden else None,
        "max_megapixels": params.ingest.max_megapixels,
        "batch_size": params.predict.batch_size,
        "device": params.train.device,
        "threads": params.train.threads,
    }
    assert process.stdin is not None
    # A process that died meanwhile is told by `receive`.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()


def receive(process: Fresh) -> Answer:
    """Wait for what the process finds; one that dies or is silent is a problem of the version, no error."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return Answer(False, 0, 0.0, f"it gave no answer in {PATIENCE_S} s")
    if process.returncode:
        last = next(iter(reversed(err.strip().splitlines())), f"exit code {process.returncode}")
        return Answer(False, 0, 0.0, f"it does not load ({last[:300]})")
    return Answer(**json.loads(out.splitlines()[-1]))


def main() -> None:
    """Answer the one request on stdin."""
    # Before the request is read, for whoever sends it is importing as well.
    from calotype.data.decode import DecodeError
    from calotype.errors import CalotypeError
    from calotype.learning import bundle, engine_choice, inference

    _ = (bundle, engine_choice, inference)
    request = json.loads(sys.stdin.readline())
    try:
        answer = _answer(request)
    except (CalotypeError, DecodeError) as error:
        answer = Answer(False, 0, 0.0, f"it does not load ({error})")
    print(json.dumps(vars(answer)))


def _answer(request: dict[str, Any]) -> Answer:
    from calotype.learning import bundle as bundles

    bundle = bundles.load(Path(request["bundle"]))
    request["engine"] = _engine(request)
    if request["golden"] is None:
        return _answer_without_images(bundle, request)
    import pyarrow.parquet as pq

    table = pq.read_table(request["golden"])
    about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if about.get("bundle_digest") != bundles.digest(Path(request["bundle"])):
        return Answer(True, 0, 0.0, "the golden images logged with it are another model's")
    if json.loads(about.get("classes", "[]")) != list(bundle.classes):
        return Answer(True, 0, 0.0, "the golden images logged with it list other classes")
    return _compare(bundle, table, request)


def _compare(bundle: Bundle, table: pa.Table, request: dict[str, Any]) -> Answer:
    import numpy as np

    from calotype.data.decode import decode_fitted

    data = [row["bytes"] for row in table["image"].to_pylist()]
    logged = np.array(table["probabilities"].to_pylist(), dtype=np.float32)
    images = np.stack([decode_fitted(item, bundle.image, max_megapixels=request["max_megapixels"]) for item in data])
    answers = _probabilities(bundle, images, request)
    count = len(images)
    if not np.isfinite(answers).all():
        return Answer(False, count, 1.0, f"it answers NaN for {_rows_not_finite(answers)} of {count} golden images")
    largest = round(float(np.abs(answers - logged).max()), 9)
    problem = _training_code() or _too_far(largest, count, TOLERANCES[request["engine"]])
    return Answer(True, count, largest, problem, request["engine"])


def _answer_without_images(bundle: Bundle, request: dict[str, Any]) -> Answer:
    import numpy as np

    shape = (1, bundle.image.channels, bundle.image.size, bundle.image.size)
    answers = _probabilities(bundle, np.zeros(shape, dtype=np.uint8), request)
    if not np.isfinite(answers).all():
        return Answer(False, 0, 1.0, "it answers NaN for a black image")
    return Answer(True, 0, 0.0, _training_code() or NONE_LOGGED, request["engine"])


def _probabilities(bundle: Bundle, images: Any, request: dict[str, Any]) -> Any:
    from calotype.learning.inference import Classifier

    classifier = Classifier(
        bundle,
        device=request["device"],
        batch_size=request["batch_size"],
        threads=request["threads"],
        engine=request["engine"],
    )
    return classifier.probabilities(images)


def _training_code() -> str:
    loaded = [name for name in TRAINING_CODE if name in sys.modules]
    return f"answering needs training code: {', '.join(loaded)}" if loaded else ""


def _engine(request: dict[str, Any]) -> str:
    from calotype.learning import bundle, engine_choice
    from calotype.learning.device import choose_device

    digest = bundle.digest(Path(request["bundle"]))
    return engine_choice.engine_of(
        engine_choice.read(Path(request["engines"]), digest, choose_device(request["device"]).type)[0]
    )


def _too_far(largest: float, count: int, tolerance: float) -> str:
    # The negated form: a difference that is no number is too far as well.
    if not largest <= tolerance:
        return f"its probabilities for {count} golden images differ by up to {largest:.2g}; allowed: {tolerance:g}"
    return ""


def _rows_not_finite(answers: Any) -> int:
    import numpy as np

    return int((~np.isfinite(answers).all(axis=1)).sum())


if __name__ == "__main__":
    main()
