"""How far two sets of pictures are apart, by their features (n, d): the arithmetic is torch-fidelity's and prdc's."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

_NEIGHBOURS = 5

FEWEST = 2 * (_NEIGHBOURS + 2)
"""Pictures below which a half has too few for `coverage` to find neighbours."""


def kid(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Kernel inception distance between two sets of features (n, d), (m, d) (Bińkowski et al. 2018)."""
    from torch_fidelity.metric_kid import kid_features_to_metric

    size = min(len(one), len(other), 500)
    found = kid_features_to_metric(
        torch.from_numpy(one),
        torch.from_numpy(other),
        kid_subset_size=size,
        kid_subsets=1 if size == len(one) == len(other) else 50,
        verbose=False,
    )
    return float(found["kernel_inception_distance_mean"])


def kid_and_fid(real: NDArray[np.float64], made: NDArray[np.float64], label: str) -> dict[str, float]:
    """KID and FID between half of the real pictures and what was made for the captions of the other half, and their
    floors, between both halves.

    Args:
        made: of the captions of `real`, in their order.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    def fid(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        statistics = [fid_features_to_statistics(torch.from_numpy(each)) for each in (one, other)]
        found = fid_statistics_to_metric(*statistics, verbose=False)
        return float(found["frechet_inception_distance"])

    first, second, other = _halves(real, made)
    separator = "-" if label.startswith("like") else " "
    return {
        f"KID{separator}{label}": kid(first, other),
        f"KID{separator}{label}, floor": kid(first, second),
        f"FID{separator}{label}": fid(first, other),
        f"FID{separator}{label}, floor": fid(first, second),
    }


def coverage(real: NDArray[np.float64], made: NDArray[np.float64]) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020), between the same
    halves as `kid_and_fid`; `FEWEST` pictures or more."""
    from prdc import compute_prdc

    first, _, other = _halves(real, made)
    with redirect_stdout(io.StringIO()):  # it prints how many there are
        found = compute_prdc(real_features=first, fake_features=other, nearest_k=_NEIGHBOURS)
    return {name: float(found[name]) for name in ("precision", "recall", "density", "coverage")}


def inception_score(logits: NDArray[np.float64]) -> float:
    """Of a classifier's logits (n, classes): how sure it is of each picture, and how many classes it sees (Salimans
    et al. 2016)."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    return float(isc_features_to_metric(torch.from_numpy(logits))["inception_score_mean"])


def nearest(points: NDArray[np.float64], among: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How far each point is from the nearest `among` others, and which that is, (n,) each."""
    found = torch.cdist(torch.from_numpy(points), torch.from_numpy(among)).min(1)
    return found.values.numpy(), found.indices.numpy()


def apart(points: NDArray[np.float64]) -> float:
    """Mean distance between two of the points."""
    return float(F.pdist(torch.from_numpy(points)).mean())


def _halves(
    real: NDArray[np.float64], made: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Half of the real pictures, the other half, and what was made for the captions of that one. As many pictures
    each, since FID falls with their number, and no real one beside what was made for its own caption and style, which
    is nearer to it than another real one is."""
    order = np.random.default_rng(0).permutation(len(real))
    half = len(real) // 2
    return real[order[:half]], real[order[half:]], made[order[half:]]
