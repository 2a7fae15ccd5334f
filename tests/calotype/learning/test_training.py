"""The training core on real digits: a golden trace, resume, refusal of what cannot work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from calotype import params as parameters
from calotype.learning import checkpoint, network, training
from calotype.learning.training import Labelled, NonFiniteLossError, State, Trainer
from calotype.params import Params

SHIPPED = parameters.load(Path(__file__).parents[3] / "params.yaml")


@pytest.fixture(scope="module")
def digits() -> Labelled:
    data = load_digits()
    images = torch.from_numpy((data.images * 255 / 16).round().astype("uint8"))[:, None]
    return Labelled(images, torch.from_numpy(data.target).long())


def recipe(**train: object) -> Params:
    values = {"epochs": 3, "batch_size": 32, "precision": "float32", "threads": 2} | train
    return SHIPPED.model_copy(update={"train": SHIPPED.train.model_copy(update=values)})


def trainer(digits: Labelled, params: Params, model: nn.Module | None = None, count: int = 256) -> Trainer:
    torch.set_num_threads(params.train.threads)
    torch.manual_seed(params.train.seed)
    model = model or network.build(params.network, params.image, classes=10)
    chosen = Labelled(digits.images[:count], digits.labels[:count])
    return Trainer(
        model,
        chosen,
        Labelled(digits.images[-100:], digits.labels[-100:]),
        training.pixel_statistics(chosen.images),
        train=params.train,
        augmentation=params.augment,
        device=torch.device("cpu"),
        classes=10,
    )


def fit(made: Trainer, state: State | None = None) -> State:
    return training.train(made, state or State(), on_step=lambda _: None, on_epoch=lambda _: None)


def test_three_steps_give_the_losses_they_always_gave(digits: Labelled) -> None:
    """A golden trace: a change of initialisation, order, augmentation, loss or optimizer shows here."""
    made = trainer(digits, recipe(), count=96)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    made.model.train()
    losses = []
    for step, chosen in enumerate(made._batches(generator)):
        made._set_learning_rate(0, step)
        loss, _ = made._step(*made._augmented(0, chosen, generator))
        losses.append(float(loss))
    assert losses == pytest.approx(GOLDEN, abs=2e-3)


GOLDEN = [2.2525, 2.1939, 2.5409]


def test_equal_seeds_give_equal_weights_and_others_do_not(digits: Labelled) -> None:
    first, second, other = (fit(trainer(digits, recipe(epochs=1, seed=seed))) for seed in (0, 0, 1))
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert not all(torch.equal(first.weights[name], other.weights[name]) for name in first.weights)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "muon"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_resumed_training_ends_with_the_same_weights(
    digits: Labelled, tmp_path: Path, optimizer: str, precision: str
) -> None:
    params = recipe(epochs=3, optimizer=optimizer, precision=precision)
    whole = fit(trainer(digits, params))
    path = tmp_path / "checkpoint.safetensors"

    def stop_after_first(state: State) -> None:
        checkpoint.save(path, "key", state, {"run_key": "r"})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(trainer(digits, params), State(), on_step=lambda _: None, on_epoch=stop_after_first)
    loaded = checkpoint.load(path, "key")
    assert loaded is not None
    state, extra = loaded
    assert state.next_epoch == 1
    assert extra == {"run_key": "r"}
    resumed = fit(trainer(digits, params), state)
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)
    assert all(torch.equal(whole.best_weights[name], resumed.best_weights[name]) for name in whole.weights)
    assert [replace(row, images_per_second=0) for row in whole.history] == [
        replace(row, images_per_second=0) for row in resumed.history
    ]


def test_a_checkpoint_of_another_training_is_not_taken(digits: Labelled, tmp_path: Path) -> None:
    state = fit(trainer(digits, recipe(epochs=1)))
    checkpoint.save(tmp_path / "c", "key", state, {})
    assert checkpoint.load(tmp_path / "c", "other") is None
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:100])
    assert checkpoint.load(tmp_path / "c", "key") is None
    assert checkpoint.load(tmp_path / "absent", "key") is None


def test_a_loss_that_is_not_finite_stops_at_once_and_says_where(digits: Labelled) -> None:
    params = recipe(optimizer="sgd", lr=1e30, warmup_epochs=0)
    with pytest.raises(NonFiniteLossError, match=r"in epoch 1, step \d, at learning rate 9\.\S+e\+29; expected"):
        fit(trainer(digits, params))


def test_early_stopping_ends_a_training_that_does_not_improve(digits: Labelled) -> None:
    params = recipe(epochs=20, lr=1e-9, early_stopping=2)
    state = fit(trainer(digits, params))
    assert state.next_epoch < 20
    assert state.next_epoch - 1 - state.best_epoch >= 2


def test_the_kept_weights_are_those_of_the_best_validation_epoch(digits: Labelled) -> None:
    state = fit(trainer(digits, recipe(epochs=4)))
    best = max(state.history, key=lambda row: (row.val_accuracy, -row.val_loss))
    assert state.best_epoch == best.epoch


class Hungry(nn.Module):
    """A network that runs out of memory on more than ``room`` images, the way a GPU does."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        logits: torch.Tensor = self.layers(images)
        return logits


def test_out_of_memory_halves_the_batch_and_gives_the_same_weights(digits: Labelled) -> None:
    def made(room: int) -> Trainer:
        torch.manual_seed(3)
        return trainer(digits, recipe(epochs=1), Hungry(room))

    plenty, scarce = made(1000), made(9)
    # Validation takes four micro-batches at a time and has room of its own.
    scarce.validation_set = Labelled(digits.images[:9], digits.labels[:9])
    plenty.validation_set = scarce.validation_set
    expected, found = fit(plenty), fit(scarce)
    assert scarce.micro_batch == 8
    for name, weight in expected.weights.items():
        assert torch.allclose(weight, found.weights[name], atol=1e-5)


def test_no_room_for_one_image_is_said(digits: Labelled) -> None:
    with pytest.raises(training.CalotypeError, match="out of memory with a single image"):
        fit(trainer(digits, recipe(), Hungry(0)))


def test_statistics_are_those_of_all_pixels(digits: Labelled) -> None:
    found = training.pixel_statistics(digits.images)
    pixels = digits.images.double() / 255
    assert found.mean[0] == pytest.approx(float(pixels.mean()), abs=1e-6)
    assert found.std[0] == pytest.approx(float(pixels.std(correction=0)), abs=1e-6)


def test_a_constant_channel_has_a_spread_of_one() -> None:
    assert training.pixel_statistics(torch.zeros(5, 1, 4, 4, dtype=torch.uint8)).std == (1.0,)


def test_balanced_weights_let_each_class_weigh_the_same() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    weights = training.class_weights(labels, 2)
    assert float(weights[0]) * 3 == pytest.approx(float(weights[1]))
    assert float(weights[labels].mean()) == pytest.approx(1.0)


def test_fewer_images_than_a_batch_still_train(digits: Labelled) -> None:
    state = fit(trainer(digits, recipe(epochs=2, batch_size=512), count=40))
    assert len(state.history) == 2
