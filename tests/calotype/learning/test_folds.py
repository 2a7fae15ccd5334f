"""Out-of-fold probabilities: no image is judged by a network that saw it, or its twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from calotype.errors import DataError
from calotype.learning import folds, network
from calotype.learning.training import Labelled
from calotype.params import Params


@pytest.fixture(scope="module")
def digits() -> Labelled:
    loaded = load_digits()
    images = torch.from_numpy((loaded.images[:300] * 255 / 16).round().astype("uint8"))[:, None]
    return Labelled(images, torch.from_numpy(loaded.target[:300]))


def judge(data: Labelled, places: np.ndarray, values: Params, epochs: int = 4) -> np.ndarray:
    torch.set_num_threads(1)
    small = values.network.model_copy(update={"widths": [8, 16], "convs": 1, "hidden": [], "dropout": 0.0})
    seen: list[folds.Progress] = []
    found = folds.out_of_fold(
        data,
        places,
        lambda: network.build(small, values.image, 10),
        train=values.train.model_copy(update={"epochs": epochs, "batch_size": 16, "precision": "float32", "lr": 0.01}),
        augmentation=values.augment,
        device=torch.device("cpu"),
        classes=10,
        on_epoch=seen.append,
    )
    assert len(seen) == epochs * len(np.unique(places))
    return found


def test_images_of_one_group_share_a_fold_and_others_spread_evenly() -> None:
    found = folds.assign(["twins", "twins", *(str(number) for number in range(4000))], 4)
    assert found[0] == found[1]
    assert np.bincount(found[2:], minlength=4) / 4000 == pytest.approx([0.25] * 4, abs=0.03)


def test_an_images_fold_does_not_hang_on_the_others() -> None:
    assert folds.assign(["a", "b", "c"], 5)[2] == folds.assign(["c"], 5)[0]


def test_every_image_is_judged_and_mostly_right(digits: Labelled, values: Params) -> None:
    probabilities = judge(digits, folds.assign([str(number) for number in range(300)], 3), values, epochs=8)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(300), abs=1e-5)
    assert (probabilities.argmax(axis=1) == digits.labels.numpy()).mean() > 0.8


def test_an_image_does_not_change_what_its_own_fold_is_told(digits: Labelled, values: Params) -> None:
    """A label of the first fold may change: that fold's answers stay, the others' change."""
    places = np.arange(300) % 2
    changed = digits.labels.clone()
    changed[:60:2] = (changed[:60:2] + 1) % 10
    before = judge(digits, places, values, epochs=1)
    after = judge(Labelled(digits.images, changed), places, values, epochs=1)
    assert np.array_equal(before[0::2], after[0::2])
    assert not np.array_equal(before[1::2], after[1::2])


def test_equal_images_give_equal_probabilities(digits: Labelled, values: Params) -> None:
    places = np.arange(300) % 2
    assert np.array_equal(judge(digits, places, values, epochs=1), judge(digits, places, values, epochs=1))


def test_a_class_that_is_all_in_one_fold_does_not_spoil_balanced_weights(digits: Labelled, values: Params) -> None:
    balanced = values.model_copy(update={"train": values.train.model_copy(update={"class_weights": "balanced"})})
    places = np.where(digits.labels.numpy() == 3, 0, np.arange(300) % 2)
    assert np.isfinite(judge(digits, places, balanced, epochs=1)).all()


def test_one_group_alone_is_refused(digits: Labelled, values: Params) -> None:
    with pytest.raises(DataError, match="one group"):
        judge(digits, np.zeros(300, dtype=np.int64), values)


def test_the_recipe_takes_the_epochs_of_the_audit_and_no_early_end(values: Params) -> None:
    hurried = values.model_copy(
        update={
            "audit": values.audit.model_copy(update={"epochs": 1}),
            "train": values.train.model_copy(update={"early_stopping": 3}),
        }
    )
    recipe = folds.recipe(hurried)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.early_stopping) == (1, 0, 0)
