"""The fresh process answers with nothing but what prediction needs, and says what is wrong in one line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from calotype.data.decode import decode, fit
from calotype.learning import bundle as bundles
from calotype.learning.bundle import Bundle
from calotype.learning.engine_names import REFERENCE, TOLERANCES
from calotype.learning.inference import Classifier
from calotype.params import Params
from calotype.releases import golden
from calotype.releases.golden import Answer

Write = Callable[..., Path]


@pytest.fixture
def folder(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    bundles.save(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def write(folder: Path, fifteen_files: Path, tmp_path: Path) -> Write:
    """A function that writes golden.parquet with the bundle's own answers, moved by so much."""

    def write_golden(*, moved: float = 0.0, digest: str = "", classes: list[str] | None = None) -> Path:
        bundle = bundles.load(folder)
        data = [path.read_bytes() for path in sorted(fifteen_files.glob("digit-*.png"))]
        images = np.stack([fit(decode(item, max_megapixels=1), bundle.image) for item in data])
        answers = Classifier(bundle, device="cpu", batch_size=3).probabilities(images) + moved
        about = {"bundle_digest": digest or bundles.digest(folder), "classes": json.dumps(classes or bundle.classes)}
        picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        schema = pa.schema([("image", picture), ("probabilities", pa.list_(pa.float32()))], metadata=about)
        rows = [
            {"image": {"bytes": item, "path": "x"}, "probabilities": row.tolist()}
            for item, row in zip(data, answers, strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "golden.parquet")
        return tmp_path / "golden.parquet"

    return write_golden


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """A function that answers a request in this process, as if it had imported no training code."""

    def ask(bundle: Path, images: Path | None) -> Answer:
        about = {"max_megapixels": 1.0, "batch_size": 256, "device": "cpu", "threads": 1, "engines": "none"}
        request: dict[str, Any] = {"bundle": str(bundle), "golden": str(images) if images else None, **about}
        monkeypatch.setattr(golden, "TRAINING_CODE", ())
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request) + "\n"))
        golden.main()
        return Answer(**json.loads(capsys.readouterr().out))

    return ask


def test_a_fresh_process_reproduces_the_logged_answers_without_training_code(
    folder: Path, write: Write, values: Params
) -> None:
    with golden.fresh_process() as process:
        golden.send(process, folder, write(), values, engines=folder / "none")
        found = golden.receive(process)
    assert (found.loads, found.images, found.problem) == (True, 10, "")
    assert found.largest_difference <= TOLERANCES[REFERENCE]
    assert found.usable
    assert process.returncode == 0


def test_a_process_that_dies_is_a_problem_of_the_version(values: Params) -> None:
    with golden.fresh_process() as process:
        process.kill()
        process.wait()
        golden.send(process, Path("bundle"), None, values, engines=Path("none"))
        found = golden.receive(process)
    assert not found.usable
    assert found.problem == "it does not load (exit code -9)"


def test_the_fresh_process_runs_this_package_and_not_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a copied checkout: from another folder, with another copy of the package behind this one."""
    (tmp_path / "calotype").mkdir()
    (tmp_path / "calotype" / "__init__.py").write_text("raise SystemExit('another copy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with golden.fresh_process() as process:
        out, err = process.communicate("{}\n", timeout=120)
    assert "another copy" not in out + err
    assert "KeyError: 'bundle'" in err


def test_a_process_that_nobody_asks_does_not_outlive_the_block() -> None:
    with golden.fresh_process() as process:
        assert process.poll() is None
    assert process.returncode is not None


def test_answers_that_moved_too_far_are_a_problem(folder: Path, write: Write, answer: Callable[..., Answer]) -> None:
    assert answer(folder, write(moved=0.5 * TOLERANCES[REFERENCE])).problem == ""
    found = answer(folder, write(moved=2 * TOLERANCES[REFERENCE]))
    assert found.problem == "its probabilities for 10 golden images differ by up to 0.0002; allowed: 0.0001"
    assert found.loads
    assert not found.usable


def test_golden_images_of_another_model_are_no_proof(folder: Path, write: Write, answer: Callable[..., Answer]) -> None:
    assert answer(folder, write(digest="f" * 64)).problem == "the golden images logged with it are another model's"
    assert answer(folder, write(classes=["a", "b"])).problem == "the golden images logged with it list other classes"


def test_without_golden_images_it_must_still_answer(folder: Path, answer: Callable[..., Answer]) -> None:
    found = answer(folder, None)
    assert found == Answer(True, 0, 0.0, golden.NONE_LOGGED)
    assert found.usable


def test_an_answer_that_is_no_number_is_not_usable(
    tiny_bundle: Bundle, write: Write, answer: Callable[..., Answer], tmp_path: Path
) -> None:
    last = [name for name in tiny_bundle.weights if name.endswith("bias")][-1]
    broken = replace(tiny_bundle, weights=tiny_bundle.weights | {last: torch.full((10,), float("nan"))})
    images = write(digest=_saved(broken, tmp_path / "broken"))
    assert answer(tmp_path / "broken", images).problem == "it answers NaN for 10 of 10 golden images"
    assert not answer(tmp_path / "broken", None).usable


def test_a_damaged_bundle_does_not_load(folder: Path, answer: Callable[..., Answer]) -> None:
    weights = folder / bundles.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x77")
    found = answer(folder, None)
    assert found.problem.startswith("it does not load (")
    assert "damaged or changed" in found.problem


def test_training_code_in_the_process_is_a_problem(
    folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import calotype.learning.training

    assert calotype.learning.training.__name__ in golden.TRAINING_CODE
    request = {"bundle": str(folder), "golden": str(write()), "max_megapixels": 1.0, "batch_size": 2}
    text = json.dumps(request | {"device": "cpu", "threads": 1, "engines": "none"})
    monkeypatch.setattr("sys.stdin", io.StringIO(text + "\n"))
    golden.main()
    problem = Answer(**json.loads(capsys.readouterr().out)).problem
    assert problem.startswith("answering needs training code: calotype.learning.training")


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (10, 2)])
def test_batch_size_and_threads_move_answers_by_far_less_than_the_tolerance(
    tiny_bundle: Bundle, batch_size: int, threads: int
) -> None:
    before = torch.get_num_threads()
    images = np.random.default_rng(0).integers(0, 256, (64, 1, 8, 8), dtype=np.uint8)
    one = Classifier(tiny_bundle, device="cpu", batch_size=64, threads=1).probabilities(images)
    other = Classifier(tiny_bundle, device="cpu", batch_size=batch_size, threads=threads).probabilities(images)
    torch.set_num_threads(before)
    assert np.abs(one - other).max() < TOLERANCES[REFERENCE] / 20


def _saved(bundle: Bundle, folder: Path) -> str:
    bundles.save(bundle, folder)
    return bundles.digest(folder)
