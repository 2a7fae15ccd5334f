"""Are two samples drawn from one distribution? Tests for vectors, classes and single numbers; pure numpy and scipy.

A p value here is the chance of a difference at least as large as the one found, if reference and window were drawn at
random from the same images. Both are samples, and both vary: a permutation shuffles which of the two each image belongs
to, and thereby holds its level whatever the distribution is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calotype.evaluation.resampling import CONFIDENCE, Interval

Floats = NDArray[np.float32] | NDArray[np.float64]
Ints = NDArray[np.int64]

FEATURES = 512
"""Random Fourier features that stand for the Gaussian kernel: all permutations then are products of matrices."""

LEAST_VARIANCE = 0.01
"""Share of the largest variance that is added to each when embeddings are whitened, so that noise is not blown up."""

PAIRED_FOR_WIDTH = 1000
"""Vectors whose distances give the kernel its width."""

LABELS_AT_ONCE = 4_000_000
"""Shuffled labels that are held at once: 16 MB."""

RESAMPLES = 1000
ROUNDING = 1e-5
"""Relative difference below which a permuted statistic counts as equal to the one found: sums of float32 round."""


@dataclass(frozen=True)
class Found:
    """What one test found.

    Parameters
    ----------
    statistic
        The test's own measure of the difference; larger is more.
    p
        Chance of at least this, if nothing differs.
    effect
        The difference in a unit that a person knows, with its interval where one is known.
    """

    statistic: float
    p: float
    effect: Interval | None = None


def discrepancy(reference: Floats, window: Floats, permutations: int, random: np.random.Generator) -> Found:
    """Maximum mean discrepancy with a Gaussian kernel, by permutation.

    Gretton et al., A kernel two-sample test, JMLR 13, 2012: the squared distance between the two samples' mean features
    (the biased estimate), the kernel's width the median distance of the pooled sample. The kernel is approximated by
    random Fourier features (Rahimi & Recht 2007). All that is fitted, whitening and width, is fitted to the pooled
    sample, which no permutation changes.

    Parameters
    ----------
    reference, window
        Embeddings, shapes (M, D) and (N, D).
    permutations
        How many shuffles; p is at least 1 / (permutations + 1).
    random
        Where features and shuffles come from.
    """
    from sklearn.kernel_approximation import RBFSampler

    pooled = whitened(np.concatenate([reference, window]))
    seed = int(random.integers(2**31))
    width = _median_distance(pooled[random.permutation(len(pooled))[:PAIRED_FOR_WIDTH]])
    sampler = RBFSampler(gamma=1 / (2 * width**2), n_components=FEATURES, random_state=seed)
    features = sampler.fit_transform(pooled.astype(np.float32))
    features -= features.mean(axis=0)
    # The mean of all is zero, so the window's sum alone tells both means.
    found = float((features[len(reference) :].sum(axis=0, dtype=np.float64) ** 2).sum())
    at_least = 1
    chunk = max(1, LABELS_AT_ONCE // len(pooled))
    for start in range(0, permutations, chunk):
        labels = _shuffled(min(chunk, permutations - start), len(pooled), len(window), random)
        at_least += int((_squares(labels, features) >= found * (1 - ROUNDING)).sum())
    scale = (1 / len(window) + 1 / len(reference)) ** 2
    return Found(found * scale, at_least / (permutations + 1))


def whitened(vectors: Floats, fitted_to: Floats | None = None) -> NDArray[np.float64]:
    """Vectors in the principal axes of a sample, each axis divided by its spread.

    A change of light or focus moves embeddings along axes in which images hardly differ otherwise: undivided, the few
    axes of the classes would drown it.

    Parameters
    ----------
    vectors
        Shape (N, D).
    fitted_to
        The sample that gives mean, axes and spreads; the vectors themselves if not given.
    """
    sample = (vectors if fitted_to is None else fitted_to).astype(np.float64)
    mean = sample.mean(axis=0)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(sample - mean, rowvar=False)))
    variances = variances.clip(0)
    spread = np.sqrt(variances + max(LEAST_VARIANCE * variances[-1], 1e-12))
    # Largest first: the first two draw a picture.
    return np.asarray((vectors - mean) @ (axes / spread)[:, ::-1])


def class_mix(reference: Ints, window: Ints, permutations: int, random: np.random.Generator) -> Found:
    """Pearson's chi-square of the classes of two samples, by permutation.

    Under permutation the window's counts are a draw without replacement from the counts of both, so nothing need be
    shuffled, and classes of few images do no harm.

    Parameters
    ----------
    reference, window
        How many images each class has, shape (K,).
    """
    pooled = reference + window
    size, total = int(window.sum()), int(pooled.sum())
    expected = pooled * (size / total)
    present = pooled > 0
    # Of both rows of the table: what the window has too much, the reference lacks.
    weight = 1 / (expected[present] * (1 - size / total))

    def chi_square(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray((((counts - expected)[:, present] ** 2) * weight).sum(axis=1))

    found = float(chi_square(window[None, :])[0])
    at_least = 1
    for start in range(0, permutations, RESAMPLES):
        drawn = random.multivariate_hypergeometric(
            pooled, size, size=min(RESAMPLES, permutations - start), method="marginals"
        )
        at_least += int((chi_square(drawn) >= found * (1 - ROUNDING)).sum())
    return Found(found, at_least / (permutations + 1))


def distribution(reference: Floats, window: Floats, random: np.random.Generator) -> Found:
    """Kolmogorov and Smirnov's test of single numbers; the effect is the difference of the means.

    That of the window less that of the reference. Its interval is the bootstrap's (Efron & Tibshirani 1993, chapter
    13), each sample resampled by itself.

    Parameters
    ----------
    reference, window
        Shapes (M,) and (N,).
    """
    from scipy import stats

    test = stats.ks_2samp(window, reference, method="asymp")
    return Found(float(test.statistic), float(test.pvalue), _difference(reference, window, random))


def _shuffled(count: int, size: int, chosen: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Rows of ``size`` labels, of which ``chosen`` at random are 1."""
    # Drawn, not shuffled: 0.05 s for 3,000 rows of 500 among 10,500, where shuffling them takes 1 s.
    places = np.stack([random.choice(size, chosen, replace=False, shuffle=False) for _ in range(count)])
    labels = np.zeros((count, size), np.float32)
    np.put_along_axis(labels, places, 1, axis=1)
    return labels


def _squares(labels: NDArray[np.float32], features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared length of the sum of the window's features, for each row of labels."""
    sums = labels @ features
    squares: NDArray[np.float64] = np.einsum("pf,pf->p", sums, sums, dtype=np.float64)
    return squares


def _median_distance(vectors: NDArray[np.float64]) -> float:
    from scipy.spatial.distance import pdist

    return float(np.median(pdist(vectors))) or 1.0


def _difference(reference: Floats, window: Floats, random: np.random.Generator) -> Interval:
    means = [_resampled_means(sample.astype(np.float64), random) for sample in (window, reference)]
    low, high = np.quantile(means[0] - means[1], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    value = float(window.mean(dtype=np.float64) - reference.mean(dtype=np.float64))
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _resampled_means(sample: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    drawn = (
        sample[random.integers(len(sample), size=(100, len(sample)), dtype=np.int32)] for _ in range(RESAMPLES // 100)
    )
    return np.concatenate([part.mean(axis=1) for part in drawn])
