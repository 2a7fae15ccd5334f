"""Exact tests of one classifier against another on the same images, and what such a test can show at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

STANDARD = NormalDist()


def mcnemar(won: int, lost: int) -> float:
    """McNemar's exact two-sided p (McNemar 1947; exact: Agresti, Categorical Data Analysis, 2013, section 11.1).

    Parameters
    ----------
    won, lost
        Images that the one alone, and the other alone, answers right. Those on which they agree tell nothing.
    """
    return min(1.0, 2 * at_least(max(won, lost), won + lost))


def fall(won: int, lost: int) -> float:
    """One-sided p that a recall fell: of the images that only one of the two has right, too many were lost."""
    return at_least(lost, won + lost)


def at_least(heads: int, coins: int) -> float:
    """How likely at least this many heads are of fair coins."""
    return _tail(heads, coins, 0.5)


def holm(chances: Sequence[float]) -> list[float]:
    """p-values that allow for how many were looked at (Holm 1979): below 5 % each, and below 5 % for any mistake."""
    adjusted, highest = [0.0] * len(chances), 0.0
    for place, index in enumerate(sorted(range(len(chances)), key=lambda index: chances[index])):
        highest = max(highest, min(1.0, (len(chances) - place) * chances[index]))
        adjusted[index] = highest
    return adjusted


def best_power(images: int, tolerance: float, level: float) -> float:
    """Chance that `fall` shows a fall of ``tolerance`` among so many images, if the challenger changes nothing else.

    The fewest losses that are significant with nothing won are ceil(-log2 level); the losses are binomial. No class of
    this size can do better, whatever the two models answer.
    """
    needed = math.ceil(-math.log2(level))
    return _tail(needed, images, tolerance)


def power(images: int, tolerance: float, level: float, churn: float) -> float:
    """Chance that a one-sided McNemar test shows a fall of ``tolerance`` while ``churn`` of the answers change as well.

    Connor, Sample size for testing differences in proportions for the paired-sample design, Biometrics 43, 1987,
    equation 3, solved for the power: with ψ the share of images that one alone has right and δ the fall,
    Φ((δ√n - z√ψ) / √(ψ - δ²)).

    Parameters
    ----------
    churn
        Share of images that are won or lost without the two differing on the whole; ψ is ``churn + tolerance``.
    """
    discordant = min(1.0, churn + tolerance)
    critical = STANDARD.inv_cdf(1 - level)
    reach = tolerance * math.sqrt(images) - critical * math.sqrt(discordant)
    return STANDARD.cdf(reach / math.sqrt(max(discordant - tolerance**2, 1e-12)))


def _tail(successes: int, trials: int, chance: float) -> float:
    """How likely a binomial count is at least ``successes``."""
    if successes <= 0:
        return 1.0
    if successes > trials:
        return 0.0
    counts = np.arange(1, trials + 1)
    odds = math.log(chance / (1 - chance))
    logs = np.concatenate([[0.0], np.cumsum(np.log((trials - counts + 1) / counts) + odds)])
    return min(1.0, float(np.exp(logs[successes:] + trials * math.log(1 - chance)).sum()))
