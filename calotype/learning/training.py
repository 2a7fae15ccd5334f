"""The training core: uint8 images in memory, epochs shuffled by index, whole batches augmented on the device.

Read `train` first. Everything random is drawn from generators seeded by (seed, epoch), so an epoch gives the same
weights whether it follows the one before in the same process or in one started after a kill.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.errors import CalotypeError
from calotype.learning.augment import augment, draw, flips_of, phases
from calotype.learning.device import holds_resident, uses_bf16
from calotype.learning.fast import PATCHES_FROM, Fast
from calotype.learning.network import normalised
from calotype.learning.optimization import build_optimizer, learning_rate
from calotype.learning.ranks import ALONE, Ranks
from calotype.learning.small_maps import multiplied
from calotype.params import AugmentParams, TrainParams

CHECK_EVERY = 50
"""Steps between two looks at the losses where a look would stall a GPU; a CPU looks at each."""


@dataclass(frozen=True)
class Labelled:
    """Images of one split: uint8 (N, C, S, S), best in `torch.channels_last`, and class indices, int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def moved(self, device: torch.device) -> Labelled:
        """The set on a GPU where there is room for all of it; else where it is."""
        if not holds_resident(self.images.nbytes, device):
            return self
        return Labelled(self.images.to(device, memory_format=torch.channels_last), self.labels.to(device))


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave. Losses are those of the training (with label smoothing and class weights)."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    images_per_second: float


@dataclass
class State:
    """Where a training stands after an epoch: all that another process needs to go on."""

    next_epoch: int = 0
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[int, dict[str, Any]] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel, for pixels between 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class NonFiniteLossError(CalotypeError):
    """The loss became infinite or not a number."""


def pixel_statistics(images_nchw: Tensor) -> Statistics:
    """Mean and standard deviation of uint8 images by channel, exact: from counts of the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means: list[float] = []
    stds: list[float] = []
    for channel in range(images_nchw.shape[1]):
        counts = torch.zeros(256, dtype=torch.int64)
        for part in torch.split(images_nchw[:, channel], 4096):
            counts += torch.bincount(part.flatten(), minlength=256)
        shares = counts.double() / counts.sum()
        mean = float((shares * values).sum())
        variance = float((shares * (values - mean) ** 2).sum())
        means.append(round(mean, 6))
        # A constant channel has no spread to divide by.
        stds.append(round(variance**0.5, 6) or 1.0)
    return Statistics(tuple(means), tuple(stds))


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights n / (K · n_k), which let each class weigh the same in the loss; float32 (K,)."""
    counts = torch.bincount(labels, minlength=classes).float()
    return counts.sum() / (classes * counts)


class Trainer:
    """A network, its optimizer and its data on one device; its part of every batch, where several train together."""

    def __init__(
        self,
        model: nn.Module,
        training_set: Labelled,
        validation_set: Labelled,
        statistics: Statistics,
        *,
        train: TrainParams,
        augmentation: AugmentParams,
        device: torch.device,
        classes: int,
        ranks: Ranks = ALONE,
    ) -> None:
        model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = ranks.with_whole_moments(multiplied(model) if device.type == "cpu" else model)
        self.ranks = ranks
        self.optimizer = build_optimizer(self.model, train)
        self.training_set = training_set.moved(device)
        self.validation_set = validation_set.moved(device)
        self.params, self.augmentation, self.device = train, augmentation, device
        self.micro_batch = min(train.batch_size, len(training_set))
        self.steps_per_epoch = max(1, len(training_set) // train.batch_size)
        # One multiplication and one addition for (x / 255 - mean) / std.
        mean, std = torch.tensor(statistics.mean, device=device), torch.tensor(statistics.std, device=device)
        self._scale, self._shift = 1 / (255 * std), -mean / std
        self._fill = (mean * 255).round().to(torch.uint8)
        self._size = validation_set.images.shape[-1]
        self._phases = phases(len(training_set), train.seed)
        balanced = train.class_weights == "balanced"
        self._class_weights = class_weights(training_set.labels, classes).to(device) if balanced else None
        self._bf16 = uses_bf16(train.precision, device)
        if isinstance(model, Fast):
            spread = torch.linspace(0, len(training_set) - 1, min(PATCHES_FROM, len(training_set))).long()
            model.whiten(self._plain(self.training_set, spread)[0])
        self._learner = ranks.with_whole_gradients(self.model)

    def train_epoch(self, epoch: int, on_step: Callable[[int], None]) -> tuple[float, float, float]:
        """Train one epoch; return mean loss, accuracy on the augmented images, and the last learning rate."""
        # Dropout draws from the global generator, in each process for other images.
        torch.manual_seed(_mix(self.params.seed, epoch) + self.ranks.rank)
        generator = torch.Generator().manual_seed(_mix(self.params.seed, epoch))
        self.model.train()
        losses: list[Tensor] = []
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        seen, rate = 0, 0.0
        for step, chosen in enumerate(self._batches(generator)):
            rate = self._set_learning_rate(epoch, step)
            images, labels = self._augmented(epoch, chosen, generator)
            loss, hits = self._step(images, labels)
            losses.append(loss)
            correct += hits
            seen += len(labels)
            if self.device.type == "cpu" or step % CHECK_EVERY == 0:
                self._refuse_non_finite(losses, epoch)
            on_step(step)
        self._refuse_non_finite(losses, epoch)
        loss = self.ranks.total(torch.stack(losses).mean()) / self.ranks.size
        return float(loss), int(self.ranks.total(correct)) / (seen * self.ranks.size), rate

    def validate(self) -> tuple[float, float]:
        """Mean loss and accuracy on the validation set, in evaluation mode, without augmentation."""
        self.model.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        with torch.inference_mode():
            ours = torch.arange(self.ranks.rank, len(self.validation_set), self.ranks.size)
            for chosen in torch.split(ours, 4 * self.micro_batch):
                loss, hits = self._loss(self.model, *self._plain(self.validation_set, chosen))
                total += loss.double() * len(chosen)
                correct += hits
        count = len(self.validation_set)
        return float(self.ranks.total(total)) / count, int(self.ranks.total(correct)) / count

    def _batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Index batches of one epoch; a last, smaller batch is left out: its batch statistics would be noise."""
        order = torch.randperm(len(self.training_set), generator=generator)
        size = self.params.batch_size
        for start in range(0, self.steps_per_epoch * size, size):
            yield order[start : start + size]

    def _set_learning_rate(self, epoch: int, step: int) -> float:
        steps = self.params.epochs * self.steps_per_epoch
        done = epoch * self.steps_per_epoch + step
        rate = learning_rate(done, steps=steps, steps_per_epoch=self.steps_per_epoch, train=self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["relative_lr"]
        return rate

    def _augmented(self, epoch: int, chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch of the training set, changed at random and normalised; of several processes each takes its part."""
        flips = flips_of(self._phases[chosen], epoch, self.augmentation.flip)
        images, labels = self.training_set.images, self.training_set.labels
        changes = draw(flips, self.augmentation, generator, size=self._size, stored_size=images.shape[-1])
        changes, chosen = changes.part(self.ranks.share), self.ranks.share(chosen)
        place = chosen
        if images.device != self.device:
            # The set is too large to lie on the GPU: this batch alone crosses over.
            images, place = _sent(images[chosen], self.device), torch.arange(len(chosen))
        changed = augment(images, place, changes, size=self._size, fill=self._fill)
        return self._normalised(changed), labels[chosen.to(labels.device)].to(self.device)

    def _plain(self, data: Labelled, chosen: Tensor) -> tuple[Tensor, Tensor]:
        place = chosen.to(data.images.device)
        return self._normalised(_sent(data.images[place], self.device)), data.labels[place].to(self.device)

    def _normalised(self, images: Tensor) -> Tensor:
        return normalised(images.to(self.device), self._scale, self._shift)

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimizer; a GPU without memory for the batch takes it in halves and adds the gradients.

        One of several processes cannot: the others wait for its gradients of the whole.
        """
        while True:
            try:
                return self._accumulate(images, labels)
            except torch.OutOfMemoryError as error:
                if self.ranks.size > 1:
                    raise CalotypeError(
                        f"train: out of memory with {len(images)} images in one of {self.ranks.size} processes. Lower "
                        "train.batch_size, or train in more processes."
                    ) from error
                if self.micro_batch <= 1:
                    raise CalotypeError(
                        "train: out of memory with a single image; expected room for one. Lower image.size, choose a "
                        "smaller network, or train on another device."
                    ) from error
                self.micro_batch = (self.micro_batch + 1) // 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _accumulate(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self.device)
        hits_sum = torch.zeros((), dtype=torch.int64, device=self.device)
        parts = zip(torch.split(images, self.micro_batch), torch.split(labels, self.micro_batch), strict=True)
        for part, part_labels in parts:
            loss, hits = self._loss(self._learner, part, part_labels)
            share = len(part) / len(images)
            (loss * share).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach() * share
            hits_sum += hits
        self.optimizer.step()
        return loss_sum, hits_sum

    def _loss(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            logits = model(images)
        logits = logits.float()
        weights, smoothing = self._class_weights, self.params.label_smoothing
        # Divided by the count, not by the weights' sum: so the parts of a batch add up to the batch.
        total = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction="sum")
        return total / len(images), (logits.argmax(1) == labels).sum()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self._bf16 else nullcontext()

    def _refuse_non_finite(self, losses: list[Tensor], epoch: int) -> None:
        recent = torch.stack(losses[-CHECK_EVERY:])
        # One process speaks for all: the gradients that are no numbers reach it within a step.
        if not self.ranks.leads or bool(recent.isfinite().all()):
            return
        first = len(losses) - len(recent) + int((~recent.isfinite()).nonzero()[0])
        rate = self._set_learning_rate(epoch, first)
        raise NonFiniteLossError(
            f"train: the loss is {float(losses[first])} in epoch {epoch + 1}, step {first + 1}, at learning rate "
            f"{rate:.3g}; expected a finite number. Lower train.lr, or set train.precision: float32."
        )


def train(
    trainer: Trainer,
    state: State,
    *,
    on_step: Callable[[int], None],
    on_epoch: Callable[[State], None],
) -> State:
    """Train from ``state`` to the last epoch, or until validation stops improving.

    Parameters
    ----------
    trainer
        Network, optimizer and data.
    state
        A fresh one, or what a checkpoint holds: then epochs go on where it stopped, to the same weights.
    on_step, on_epoch
        Called after each step with its number, and after each epoch with the state, which the caller may keep.

    Raises
    ------
    NonFiniteLossError
        As soon as a loss is not finite.
    """
    _restore(trainer, state)
    patience = trainer.params.early_stopping
    for epoch in range(state.next_epoch, trainer.params.epochs):
        if patience and state.history and epoch - 1 - state.best_epoch >= patience:
            break
        start = time.perf_counter()
        train_loss, train_accuracy, rate = trainer.train_epoch(epoch, on_step)
        trained = trainer.steps_per_epoch * min(trainer.params.batch_size, len(trainer.training_set))
        rate_of_images = trained / (time.perf_counter() - start)
        val_loss, val_accuracy = trainer.validate()
        state.history.append(Epoch(epoch, train_loss, train_accuracy, val_loss, val_accuracy, rate, rate_of_images))
        _take(trainer, state, epoch)
        on_epoch(state)
    return state


def _sent(images: Tensor, device: torch.device) -> Tensor:
    """Images on the device; on the way to a GPU the copy runs beside the step before."""
    if device.type == "cuda" and images.device.type == "cpu":
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)


def _take(trainer: Trainer, state: State, epoch: int) -> None:
    state.next_epoch = epoch + 1
    state.weights = _copy(trainer.model.state_dict())
    state.optimizer = trainer.optimizer.state_dict()["state"]
    if state.best_epoch < 0 or _merit(state.history[-1]) > _merit(state.history[state.best_epoch]):
        state.best_epoch, state.best_weights = epoch, state.weights


def _merit(epoch: Epoch) -> tuple[float, float]:
    """Validation accuracy decides, then the smaller validation loss."""
    return epoch.val_accuracy, -epoch.val_loss


def _restore(trainer: Trainer, state: State) -> None:
    if not state.weights:
        return
    trainer.model.load_state_dict(state.weights)
    fresh = trainer.optimizer.state_dict()
    trainer.optimizer.load_state_dict({"state": state.optimizer, "param_groups": fresh["param_groups"]})
    # Fused kernels walk memory: the moments need the parameters' own layout (channels_last), which no file keeps.
    for parameter, slots in trainer.optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                slots[name] = torch.empty_like(parameter).copy_(value)


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in weights.items()}


def _mix(seed: int, epoch: int) -> int:
    """A seed for an epoch of a seed: close seeds and epochs share no stream."""
    return (seed * 1_000_003 + epoch) * 2_654_435_761 % 2**63


def history_rows(history: list[Epoch]) -> list[dict[str, float]]:
    """The history as plain rows, epochs counted from 1 as people do."""
    return [asdict(epoch) | {"epoch": epoch.epoch + 1} for epoch in history]
