"""How close generated images or points are to real ones: distances between samples, agreement with labels, novelty."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hjbridge.metrics.classifiers import Classifier
from hjbridge.metrics.features import features
from hjbridge.metrics.intervals import Estimate, quantile_of, wilson
from hjbridge.metrics.moments import checked

CHUNK = 1024


def _pair(a: Tensor, b: Tensor, rows: int = 1) -> tuple[Tensor, Tensor]:
    a, b = checked("a", a, rows), checked("b", b, rows)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a and b must have the same width, got {a.shape[1]} and {b.shape[1]}")
    return a, b


def kid(a: Tensor, b: Tensor, level: float = 0.95) -> Estimate:
    """Kernel distance: the unbiased squared maximum mean discrepancy with the cubic kernel k(x, y) = (x.y / d + 1)^3.

    KID = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    It is zero on average for equal distributions, whatever n, and may be negative. The standard error is the
    delete-one jackknife over both samples, which errs on the wide side near zero; the interval is normal.

    Args:
        a, b: features (n, d) and (m, d), at least 3 rows each.
        level: coverage in (0, 1).

    Returns:
        Estimate.

    Raises:
        ValueError: shapes that do not match, NaN or infinity.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs", section 3; Efron and Stein 1981 for the jackknife.
    """
    a, b = _pair(a, b, 3)
    n, m, d = len(a), len(b), a.shape[1]

    def row_sums(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([((rows @ y.T / d + 1) ** 3).sum(1) for rows in x.split(CHUNK)])

    aa = row_sums(a, a) - (a.square().sum(1) / d + 1) ** 3
    bb = row_sums(b, b) - (b.square().sum(1) / d + 1) ** 3
    ab, ba = row_sums(a, b), row_sums(b, a)
    within_a, within_b, between = aa.sum() / (n * (n - 1)), bb.sum() / (m * (m - 1)), ab.sum() / (n * m)
    value = within_a + within_b - 2 * between
    # leave out row i of a, then row j of b: pairs with that row leave both sums
    without_a = (aa.sum() - 2 * aa) / ((n - 1) * (n - 2)) + within_b - 2 * (ab.sum() - ab) / ((n - 1) * m)
    without_b = within_a + (bb.sum() - 2 * bb) / ((m - 1) * (m - 2)) - 2 * (ba.sum() - ba) / (n * (m - 1))
    variance = (n - 1) * without_a.var(correction=0) + (m - 1) * without_b.var(correction=0)
    error, z = math.sqrt(float(variance)), quantile_of(level)
    return Estimate(float(value), error, float(value) - z * error, float(value) + z * error, level)


def wasserstein(a: Tensor, b: Tensor, p: float = 1.0) -> Tensor:
    """Wasserstein-p distance between samples on the line, exact for any two sizes.

    W_p = (int_0^1 |F_a^-1(u) - F_b^-1(u)|^p du)^(1/p)

    Args:
        a, b: (n,) and (m,); or (n, k) and (m, k) for k pairs of samples at once.
        p: order, at least 1.

    Returns:
        float64, 0-d or (k,).

    Raises:
        ValueError: p < 1 or infinite, shapes that do not match, NaN or infinity.
    """
    if not 1 <= p < math.inf:
        raise ValueError(f"p must be at least 1 and finite, got {p}")
    flat = a.ndim == 1
    a, b = _pair(a[:, None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b)
    a, b, n, m = a.sort(0).values, b.sort(0).values, len(a), len(b)
    # both quantile functions are constant between neighbouring levels of {i/n} and {j/m}; integers keep that exact
    i, j = (torch.arange(1, k + 1, device=a.device) for k in (n, m))
    ends = torch.unique(torch.cat([i * m, j * n]))
    widths = torch.diff(ends, prepend=ends.new_zeros(1)).to(a) / (n * m)
    gaps = (a[(ends - 1) // m] - b[(ends - 1) // n]).abs() ** p
    result = (widths @ gaps) ** (1 / p)
    return result[0] if flat else result


def sliced_wasserstein(
    a: Tensor, b: Tensor, *, p: float = 2.0, projections: int = 256, generator: torch.Generator | None = None
) -> float:
    """Sliced Wasserstein-p distance: W_p of one-dimensional projections, averaged over random directions.

    SW_p = (mean_theta W_p(theta.a, theta.b)^p)^(1/p),   theta uniform on the unit sphere

    Args:
        a, b: (n, d) and (m, d).
        p: order, at least 1.
        projections: number of directions.
        generator: source of randomness.

    Returns:
        SW_p >= 0; the estimate over directions has a relative error of order projections^(-1/2).

    Raises:
        ValueError: p < 1, projections < 1, shapes that do not match, NaN or infinity.

    Source: Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".
    """
    a, b = _pair(a, b)
    if projections < 1:
        raise ValueError(f"projections must be at least 1, got {projections}")
    device = None if generator is None else generator.device
    theta = torch.randn(a.shape[1], projections, dtype=torch.float64, generator=generator, device=device)
    theta = (theta / theta.norm(dim=0)).to(a.device)
    return float((wasserstein(a @ theta, b @ theta, p) ** p).mean() ** (1 / p))


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Energy distance between two samples: zero exactly when each point has the same share in both.

    D^2 = 2 mean |a_i - b_j| - mean |a_i - a_j| - mean |b_i - b_j|   (all pairs, i = j included)

    Args:
        a, b: (n, d) and (m, d).

    Returns:
        D^2 >= 0; for equal distributions its mean is E|X - X'| (1/n + 1/m).

    Raises:
        ValueError: shapes that do not match, NaN or infinity.

    Source: Szekely and Rizzo 2013, "Energy statistics".
    """
    a, b = _pair(a, b)

    def mean_distance(x: Tensor, y: Tensor) -> float:
        return float(sum(torch.cdist(rows, y).sum() for rows in x.split(CHUNK))) / (len(x) * len(y))

    return max(0.0, 2 * mean_distance(a, b) - mean_distance(a, a) - mean_distance(b, b))


def nearest_distance(x: Tensor, train: Tensor) -> Tensor:
    """Distance from each x to the nearest training point: min_j |x_i - t_j|.

    Args:
        x: (n, ...) points or images.
        train: (m, ...) of the same kind.

    Returns:
        (n,), Euclidean, in the units of x.

    Raises:
        ValueError: shapes that do not match, NaN or infinity.
    """
    if x.shape[1:] != train.shape[1:] or x.ndim < 2 or not len(x) or not len(train):
        raise ValueError(f"x and train must be (n, ...) and (m, ...), got {tuple(x.shape)} and {tuple(train.shape)}")
    if not bool(torch.isfinite(x).all() and torch.isfinite(train).all()):
        raise ValueError("x and train must be finite, got NaN or infinity")
    centre = train.mean(0).flatten()
    flat, squares = train.flatten(1) - centre, (train.flatten(1) - centre).square().sum(1)
    nearest = []
    for rows in (x.flatten(1) - centre).split(CHUNK):
        # argmin_j |x - t_j|^2 = argmin_j |t_j|^2 - 2 x.t_j; the distance itself is not left to cancellation
        index = (squares - 2 * rows @ flat.T).argmin(1)
        nearest.append((rows - flat[index]).norm(dim=1))
    return torch.cat(nearest)


def nearest_ratio(x: Tensor, train: Tensor, test: Tensor) -> float:
    """Novelty: mean distance of x to the nearest training image over the same for real test images.

    nn = mean_i min_j |x_i - t_j| / mean_k min_j |s_k - t_j|

    Args:
        x: generated images (n, ...).
        train: training images (m, ...).
        test: real images that were not trained on (k, ...).

    Returns:
        1: as novel as real images; well below .9: copies; well above 1.1: off the data.

    Raises:
        ValueError: shapes that do not match, NaN or infinity, or test images that are all copies of training images.
    """
    real = float(nearest_distance(test, train).mean())
    if real == 0:
        raise ValueError("test must hold images that are not in train, got copies only")
    return float(nearest_distance(x, train).mean()) / real


def coverage(x: Tensor, train: Tensor, test: Tensor, neighbours: int = 5) -> float:
    """Diversity: share of test images with a sample nearer than their k-th nearest training image.

    Args: x generated images (n, ...); train (m, ...) and test (k, ...) real ones; neighbours k.
    Returns: near 1 where samples are everywhere that real images are; falls as modes go missing. It grows with n.
    Raises: ValueError if shapes do not match, for NaN or infinity, or fewer training images than neighbours.
    Source: Naeem et al. 2020, section 3, with the radius taken from images that the test images are not among.
    """
    if not 1 <= neighbours <= len(train):
        raise ValueError(f"neighbours must lie in [1, {len(train)}], got {neighbours}")
    nearest = nearest_distance(test, x)
    if train.shape[1:] != test.shape[1:] or not bool(train.isfinite().all()):
        shapes = f"{tuple(train.shape)} for {tuple(test.shape)}"
        raise ValueError(f"train must be finite, of images like test, got shape {shapes}")
    radius = torch.cdist(test.flatten(1), train.flatten(1)).kthvalue(neighbours, dim=1).values
    return (nearest < radius).double().mean().item()


def label_accuracy(model: Classifier, pixels: Tensor, labels: Tensor, level: float = 0.95) -> Estimate:
    """Share of images whose label the classifier recognises, with its Wilson interval.

    Args:
        model: from `classifier`.
        pixels: (n, 1, side, side) in [0, 1].
        labels: int64 (n,), what each image should show.
        level: coverage in (0, 1).

    Raises:
        ValueError: shapes that do not match, NaN or infinity.
    """
    if labels.shape != pixels.shape[:1]:
        raise ValueError(f"labels must have shape ({len(pixels)},), got {tuple(labels.shape)}")
    with torch.no_grad():
        predicted = model.head(features(model, pixels)).argmax(1)
    return wilson(int((predicted == labels.to(predicted.device)).sum()), len(labels), level)
