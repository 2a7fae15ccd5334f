"""Our batch prediction without the start of a process, and what its two unavoidable parts cost.

Arguments: a folder of a few images, the folder to predict, the table to write, and the engine that is chosen.
Classifies the few images first, so that imports are paid; the second call still asks for the champion and reads the
bundle. Then decodes the same files from memory, and runs the network over the decoded images, each alone: no pipeline
can be cheaper than these two.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from bench.peers.plain import Clock
from calotype import params
from calotype.data.decode import decode_fitted
from calotype.learning import bundle
from calotype.learning.inference import Classifier
from calotype.params import Params
from calotype.predictions.prediction import predict_to_file
from calotype.project import Project


def main(few: str, folder: str, to: str, engine: str) -> None:
    """Predict, and print what loop, reading, decoding and forward pass cost, as JSON."""
    project = Project.find()
    values = params.load(project.params)
    predict_to_file(project, values, Path(few), Path(to))
    clock = Clock()
    summary = predict_to_file(project, values, Path(folder), Path(to))
    loop = clock.read()
    print(json.dumps({"images": summary.files, "loop": loop, "parts": parts(project, values, Path(folder), engine)}))


def parts(project: Project, values: Params, folder: Path, engine: str) -> dict[str, float]:
    """CPU-seconds of reading, decoding and the forward pass over a folder, one after the other."""
    loaded = bundle.load(project.bundle)
    size, threads = values.predict.batch_size, values.train.threads
    classifier = Classifier(loaded, device="cpu", batch_size=size, threads=threads, engine=engine)
    clock = Clock()
    encoded = [path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))]
    read = clock.read()["cpu_s"]
    clock = Clock()
    megapixels = values.ingest.max_megapixels
    images = np.stack([decode_fitted(data, loaded.image, max_megapixels=megapixels) for data in encoded])
    decoded = clock.read()["cpu_s"]
    classifier.probabilities(images[:size])
    clock = Clock()
    classifier.probabilities(images)
    return {"read": read, "decode": decoded, "forward": clock.read()["cpu_s"]}


if __name__ == "__main__":
    main(*sys.argv[1:])
