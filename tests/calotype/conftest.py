"""Fixtures of the tests of `calotype`: a tiny model that was really trained, and a project with a champion."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calotype import params
from calotype.params import Params
from calotype.project import Project

if TYPE_CHECKING:
    from calotype.learning.bundle import Bundle
    from calotype.learning.reference import Reference

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def values() -> Params:
    """The values of the repository's params.yaml."""
    return params.load(REPOSITORY / "params.yaml")


@pytest.fixture(scope="session")
def tiny_bundle(values: Params) -> Bundle:
    """A small network after a second of training on scikit-learn's digits; right for nine of ten of them."""
    import torch
    from sklearn.datasets import load_digits

    from calotype.learning import network
    from calotype.learning.bundle import Bundle
    from calotype.learning.inference import with_embedding

    small = values.network.model_copy(update={"widths": [8, 16], "convs": 1, "hidden": [], "dropout": 0.0})
    digits = load_digits()
    images = torch.from_numpy((digits.images * 255 / 16).round().astype("uint8"))[:, None]
    labels = torch.from_numpy(digits.target)
    threads = torch.get_num_threads()
    # Two threads on busy cores take longer than one.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = network.build(small, values.image, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for start in list(range(0, len(images), 64)) * 3:
        batch = (images[start : start + 64].float() / 255 - 0.3) / 0.37
        loss = torch.nn.functional.cross_entropy(model(batch), labels[start : start + 64])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    made = Bundle(
        network=small,
        classes=tuple(str(digit) for digit in range(10)),
        image=values.image,
        mean=(0.3,),
        std=(0.37,),
        temperature=1.0,
        weights=model.state_dict(),
        trained_with={},
    )
    return with_embedding(made)


@pytest.fixture(scope="session")
def tiny_reference(tiny_bundle: Bundle) -> Reference:
    """What the tiny model answers for a third of the digits, as if they were validation images."""
    import numpy as np
    from sklearn.datasets import load_digits

    from calotype.data.appearance import appearance
    from calotype.learning.inference import Classifier
    from calotype.learning.reference import Reference

    digits = load_digits()
    images = (digits.images[::3] * 255 / 16).round().astype("uint8")[:, None]
    probabilities, embedding = Classifier(tiny_bundle, device="cpu", batch_size=64).answers(images)
    return Reference(embedding.astype(np.float16), probabilities, appearance(images), digits.target[::3])


@pytest.fixture(scope="session")
def make_evaluated(
    reproduced: Project, tiny_bundle: Bundle, tiny_reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Project]:
    """A function that makes a project with an MLflow store of its own, whose evaluated model is the tiny one."""
    from calotype.learning import bundle
    from calotype.learning.run_record import RunRecord
    from calotype.stages import evaluate

    def make() -> Project:
        root = tmp_path_factory.mktemp("evaluated") / "project"
        shutil.copytree(reproduced.root, root, ignore=shutil.ignore_patterns("mlruns", ".cache"), symlinks=True)
        project = Project(root)
        bundle.save(tiny_bundle, project.bundle, tiny_reference)
        digest = bundle.digest(project.bundle)
        record = RunRecord.read(project.run_json)
        record.model_copy(update={"key": digest[:32], "bundle_digest": digest}).write(project.run_json)
        evaluate.run(params.load(project.params), project)
        return project

    return make


@pytest.fixture(scope="session")
def evaluated_project(make_evaluated: Callable[[], Project]) -> Project:
    """Such a project; tests leave it as it is."""
    return make_evaluated()


@pytest.fixture(scope="session")
def champion_project(evaluated_project: Project) -> Project:
    """The same, with the tiny model as champion."""
    from calotype.releases import promotion, registry

    registry.register(evaluated_project, params.load(evaluated_project.params))
    assert promotion.promote(evaluated_project, params.load(evaluated_project.params)).promoted
    return evaluated_project


@pytest.fixture(scope="session")
def fifteen_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten digits as PNG and five files that cannot be read as images, each in another way."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("fifteen")
    for number, image in enumerate(load_digits().images[:10]):
        Image.fromarray((image * 255 / 16).round().astype("uint8")).save(folder / f"digit-{number}.png")
    whole = (folder / "digit-0.png").read_bytes()
    (folder / "bad-corrupt.png").write_bytes(whole[:30] + b"\xff" * 20 + whole[50:])
    (folder / "bad-empty.png").write_bytes(b"")
    (folder / "bad-text.jpg").write_text("not an image")
    (folder / "bad-link.png").symlink_to(folder / "nothing")
    (Path(os.fsdecode(os.fsencode(folder) + b"/bad-name-\xe9.png"))).write_bytes(whole)
    return folder


@pytest.fixture(scope="session")
def registry_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of params.yaml alone, with an MLflow store; tests make versions there under names of their own."""
    from calotype import tracking

    root = tmp_path_factory.mktemp("registry") / "project"
    root.mkdir()
    shutil.copy(REPOSITORY / "params.yaml", root)
    tracking.connect(Project(root))
    return Project(root)


@pytest.fixture
def named(values: Params, request: pytest.FixtureRequest) -> Params:
    """The repository's values, with a model name of this test's own."""
    return values.model_copy(update={"name": request.node.name[:80].replace("[", ".").strip("]")})


@pytest.fixture
def make_version(registry_project: Project) -> Callable[[str], int]:
    """A function that makes a version of a model, with a run but without a bundle, and returns its number."""
    from calotype import tracking
    from calotype.releases import versions

    client = tracking.connect(registry_project)

    def make(name: str) -> int:
        run = client.create_run(tracking.experiment(registry_project, client, "made")).info.run_id
        if versions.Registry(registry_project, client).model(name) is None:
            client.create_registered_model(name)
        tags = {versions.BUNDLE_DIGEST: "0" * 64}
        made = client.create_model_version(name, f"{registry_project.root.as_uri()}/nothing", run_id=run, tags=tags)
        return int(made.version)

    return make
