"""Engines answer alike, and a choice holds only where it was measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calotype.errors import UsageError
from calotype.learning import answers, embedding, engine_choice, engines, network
from calotype.learning.bundle import Bundle
from calotype.learning.engine_choice import Choice
from calotype.learning.inference import Classifier, probability_model
from calotype.learning.network import Probabilities
from calotype.params import Params

CPU = torch.device("cpu")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (33, 1, 8, 8), dtype=np.uint8)


@pytest.mark.parametrize(("engine", "tolerance"), [("onnx", 1e-5), ("openvino", 0.02), ("bf16", 0.02)])
def test_an_engine_answers_as_the_reference_does(
    tiny_bundle: Bundle, images: np.ndarray, engine: str, tolerance: float
) -> None:
    expected, embedding = Classifier(tiny_bundle, device="cpu", batch_size=64).answers(images)
    found, embedded = Classifier(tiny_bundle, device="cpu", batch_size=7, engine=engine).answers(images)
    assert np.abs(found - expected).max() <= tolerance
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert embedded.shape == (33, 64)
    # Between float16 and bfloat16 lie three binary places.
    assert np.abs(embedded - embedding).max() <= max(tolerance, 1e-3) * 2 * np.abs(embedding).max()
    np.testing.assert_array_equal(embedded, embedded.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("engine", ["float32", "onnx", "openvino", "bf16"])
def test_a_model_without_projection_answers_and_gives_no_embedding(
    tiny_bundle: Bundle, images: np.ndarray, engine: str
) -> None:
    expected = Classifier(tiny_bundle, device="cpu", batch_size=64, engine=engine).probabilities(images)
    older = replace(tiny_bundle, embedding_size=0)
    found, embedding = Classifier(older, device="cpu", batch_size=64, engine=engine).answers(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert embedding.shape == (33, 0)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_kept_graph_gives_what_its_engine_gives(tiny_bundle: Bundle, images: np.ndarray, engine: str) -> None:
    graph = engines.export(probability_model(tiny_bundle), tiny_bundle.image)
    described = replace(tiny_bundle, weights={})
    kept = answers.GraphClassifier(engine, described, graph, batch_size=16, threads=1)
    made = Classifier(tiny_bundle, device="cpu", batch_size=16, threads=1, engine=engine)
    for found, expected in zip(kept.answers(images), made.answers(images), strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(kept.probabilities(images), made.probabilities(images))
    assert kept.answers(images[:0])[1].shape == (0, 64)


def test_an_embedding_beyond_float16_is_its_largest_number() -> None:
    pair = np.array([[1.0]], np.float32), np.array([[1e6, -1e6, np.nan]], np.float32)
    _, embedding = answers.in_batches(lambda _: pair, np.zeros((1, 1, 4, 4), np.uint8), 8, (1, 3))
    np.testing.assert_array_equal(embedding, [[65504, -65504, np.nan]])


@pytest.mark.parametrize("name", ["cnn", "fast", "resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_networks_for_colour_are_folded_and_exported(values: Params, name: str) -> None:
    image = values.image.model_copy(update={"size": 32, "channels": 3})
    torch.manual_seed(0)
    net = network.build(values.network.model_copy(update={"name": name}), image, 4)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    model = Probabilities(net, (0.5, 0.4, 0.6), (0.2, 0.3, 0.25), 1.5, embedding.draw(net)).eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    expected, embedded = engines.build("float32", model, image, CPU, 1)(images)
    size = np.abs(embedded).max()
    for engine, near, nearly in (("onnx", 1e-5, 1e-5), ("openvino", 0.02, 0.05), ("bf16", 0.02, 0.05)):
        found, other = engines.build(engine, model, image, CPU, 1)(images)
        assert np.abs(found - expected).max() < near
        assert np.abs(other - embedded).max() < nearly * size
    left = [one for one in engines.fold(model.network).modules() if isinstance(one, torch.nn.BatchNorm2d)]
    # It pools between the convolution and the normalisation.
    assert not left or name == "fast"


def test_close_calls_are_settled_by_the_exact_engine() -> None:
    asked: list[np.ndarray] = []
    fast = np.array([[0.5, 0.49, 0.01], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4], [0.01, 0.495, 0.495]], dtype=np.float32)
    exact = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32)
    # Embeddings that would be close calls, were they probabilities.
    embedding = np.zeros((4, 2), dtype=np.float32)

    def settle(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(images)
        return exact, np.ones((2, 2), dtype=np.float32)

    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    found, embedded = answers.settled(lambda _: (fast.copy(), embedding.copy()), settle)(images)
    assert [one.ravel().tolist() for one in asked] == [[0, 3]]
    np.testing.assert_array_equal(found, [exact[0], fast[1], fast[2], exact[1]])
    np.testing.assert_array_equal(embedded, [[1, 1], [0, 0], [0, 0], [1, 1]])


@pytest.mark.parametrize("engine", ["float32", "bf16", "onnx", "openvino"])
def test_threads_ask_an_engine_at_once(tiny_bundle: Bundle, engine: str) -> None:
    batches = np.random.default_rng(1).integers(0, 256, (40, 5, 1, 8, 8), dtype=np.uint8)
    before = torch.get_num_threads()
    classifier = Classifier(tiny_bundle, device="cpu", batch_size=5, threads=1, engine=engine)
    expected = [classifier.answers(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(classifier.answers, batches))
    torch.set_num_threads(before)
    for one, other in zip(found, expected, strict=True):
        for values, wanted in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize("shape", [(3, 8, 6, 4), (2, 4, 5, 7)])
def test_the_largest_of_rows_is_what_torch_finds(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape).bfloat16().to(memory_format=torch.channels_last)
    assert torch.equal(engines._PoolOfRows()(maps), torch.nn.functional.max_pool2d(maps, 2))


def test_an_unknown_engine_is_refused_by_name(tiny_bundle: Bundle) -> None:
    with pytest.raises(
        UsageError, match="engine 'int8' is none for cpu; expected one of float32, onnx, openvino, bf16"
    ):
        Classifier(tiny_bundle, device="cpu", batch_size=4, engine="int8")


def chosen(**changes: object) -> Choice:
    facts = {"engine": "bf16", "batch_size": 64, "images": 10, "per": "CPU-second"}
    return Choice.model_validate(facts | {"measured_on": engine_choice.where("cpu"), "measured": []} | changes)


def test_a_choice_holds_on_the_processor_that_it_was_measured_on(tmp_path: Path) -> None:
    assert engine_choice.read(tmp_path, "d", "cpu") == (None, "")
    engine_choice.write(tmp_path, "d", chosen())
    assert engine_choice.read(tmp_path, "d", "cpu") == (chosen(), "")
    assert engine_choice.engine_of(chosen()) == "bf16"
    assert engine_choice.engine_of(None) == "float32"


def test_on_another_processor_float32_answers_and_one_line_says_so(tmp_path: Path) -> None:
    engine_choice.write(tmp_path, "d", chosen(measured_on=engine_choice.where("cpu") | {"processor": "Z80"}))
    found, note = engine_choice.read(tmp_path, "d", "cpu")
    assert found is None
    assert note.startswith("the engine bf16 was chosen on processor Z80, here ")
    assert note.endswith("; float32 answers. Run `calotype tune`.")
    assert "\n" not in note


@pytest.mark.parametrize("text", ["{}", chosen().model_copy(update={"format_version": 1}).model_dump_json()])
def test_a_choice_that_is_damaged_or_of_an_older_format_is_not_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(text)
    found, note = engine_choice.read(tmp_path, "d", "cpu")
    assert found is None
    assert note == "d.json: not a choice of this format; float32 answers. Run `calotype tune`."
