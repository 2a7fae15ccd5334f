"""Findings about a model that exists nowhere: drawn at random, so that every part of a page has something to show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from calotype.evaluation import findings
from calotype.evaluation.findings import Answers, Findings
from calotype.evaluation.throughput import Cost
from calotype.params import EvaluateParams

COST = Cost(
    parameters=99_370,
    bytes=400_000,
    multiply_adds=1_200_000,
    images_per_second=8123.4,
    batch_size=256,
    repeats=7,
    device="cpu, 2 threads",
)


def make_answers(classes: list[str], images: int = 60, skill: float = 2.0, **columns: list[Any]) -> Answers:
    """Answers of a model whose confidence is about right; ``columns`` join the manifest."""
    random = np.random.default_rng(2)
    actual = np.arange(images) % len(classes)
    scores = random.normal(size=(images, len(classes)))
    scores[np.arange(images), actual] += skill
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    sampled = np.arange(min(images, 40))
    rows = {
        "image_id": [f"{number:064x}" for number in range(images)],
        "path": [f"{classes[place]}/{number}.png" for number, place in enumerate(actual)],
        "label": [classes[place] for place in actual],
        "width": [20 + number % 30 for number in range(images)],
        "height": [20] * images,
        "drop": [1 + number % 2 for number in range(images)],
    }
    return Answers(
        test=pl.DataFrame(rows | columns),
        actual=actual,
        probabilities=shares.astype(np.float32),
        brightness=random.uniform(0, 255, images),
        sampled=sampled,
        sample=random.integers(0, 256, (len(sampled), 1, 8, 8), dtype=np.uint8),
        cost=COST,
    )


def make_findings(classes: list[str], images: int = 60, skill: float = 2.0, **changes: Any) -> Findings:
    """What such answers show; ``changes`` replace fields."""
    answers = make_answers(classes, images, skill)
    params = EvaluateParams(
        top_k=3, bootstrap=100, target_precision=0.9, slices=["drop"], robustness_images=len(answers.sample)
    )
    random = np.random.default_rng(3)

    def answer(pictures: np.ndarray) -> np.ndarray:
        shares = answers.probabilities[answers.sampled].copy()
        spoilt = random.random(len(pictures)) < 0.3
        shares[spoilt] = np.roll(shares[spoilt], 1, axis=1)
        return shares

    found = findings.measure(answers, classes, params, temperature=1.3, abstain_below=0.6, answer=answer)
    return replace(found, **changes)
