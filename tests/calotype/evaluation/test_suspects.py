"""Confident learning: wrong labels come first, and nothing but the evidence decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calotype.evaluation.suspects import confident_class, estimated_joint, find, thresholds


def noisy(seed: int, images: int = 600, classes: int = 4, flips: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a network that is mostly right, labels of which some were flipped, and which those are."""
    random = np.random.default_rng(seed)
    true = random.integers(0, classes, images)
    scores = random.normal(size=(images, classes))
    scores[np.arange(images), true] += 4
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    given_labels, flipped = true.copy(), random.choice(images, flips, replace=False)
    given_labels[flipped] = (true[flipped] + random.integers(1, classes, flips)) % classes
    return given_labels, probabilities, np.isin(np.arange(images), flipped)


def test_a_threshold_is_the_mean_probability_of_a_class_among_images_of_its_label() -> None:
    probabilities = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    assert thresholds(np.array([0, 0, 1]), probabilities) == pytest.approx([0.7, 0.8])


def test_a_class_without_images_is_suggested_to_nobody_with_confidence() -> None:
    probabilities = np.array([[0.1, 0.1, 0.8], [0.1, 0.7, 0.2]])
    labels = np.array([0, 1])
    assert confident_class(probabilities, thresholds(labels, probabilities)).tolist() == [0, 1]


def test_the_confident_class_is_the_most_probable_of_those_above_their_threshold() -> None:
    probabilities = np.array([[0.55, 0.45], [0.6, 0.4], [0.3, 0.3]])
    assert confident_class(probabilities, np.array([0.58, 0.42])).tolist() == [1, 0, -1]


def test_the_joint_by_hand() -> None:
    """Three images labelled 0, of which one is confidently 1; one of two labelled 1 is confident of nothing."""
    joint = estimated_joint(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, -1]), 2)
    assert joint == pytest.approx(np.array([[2 / 5, 1 / 5], [0, 2 / 5]]))


def test_flipped_labels_come_first_and_are_counted() -> None:
    labels, probabilities, is_flipped = noisy(0)
    found = find(labels, probabilities)
    assert is_flipped[found.order[:30]].mean() >= 0.9
    assert found.noise == pytest.approx(0.05, abs=0.02)


def test_labels_that_nobody_doubts_give_no_suspect() -> None:
    found = find(np.array([0, 1, 0]), np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]]))
    assert not found.is_suspect.any()
    assert found.noise == 0
    assert found.suggestion.tolist() == [1, 0, 1]
    assert found.score == pytest.approx([0.1, 0.2, 0.1])
    assert found.order.tolist() == [1, 0, 2]


@given(st.integers(0, 1000))
def test_renaming_the_classes_renames_the_suggestions_and_nothing_else(seed: int) -> None:
    labels, probabilities, _ = noisy(seed, images=60, flips=6)
    order = np.random.default_rng(seed).permutation(4)
    plain, renamed = find(labels, probabilities), find(np.argsort(order)[labels], probabilities[:, order])
    assert renamed.order.tolist() == plain.order.tolist()
    assert order[renamed.suggestion].tolist() == plain.suggestion.tolist()
    assert renamed.noise == pytest.approx(plain.noise)


@given(st.integers(0, 1000))
def test_each_image_is_ranked_once_by_its_score_and_none_is_told_its_own_label(seed: int) -> None:
    labels, probabilities, _ = noisy(seed, images=60, flips=6)
    found = find(labels, probabilities)
    assert sorted(found.order.tolist()) == list(range(60))
    assert (np.diff(found.score[found.order]) <= 0).all()
    assert ((found.score >= 0) & (found.score <= 1)).all()
    assert (found.suggestion != labels).all()
    assert found.joint.sum() == pytest.approx(1)
    assert found.joint.sum(axis=1) == pytest.approx(np.bincount(labels, minlength=4) / 60)
