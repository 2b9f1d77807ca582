import math

import pytest
import torch

from hjbridge.score import EmpiricalDenoiser, sample, time_grid
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.processes import EDM, VP, RectifiedFlow

LABELS = torch.tensor([0, 0, 1, 1, 1, 3, 3])


@pytest.fixture
def data(generator):
    return 2 + torch.randn(7, 1, 2, 2, dtype=torch.float64, generator=generator)


@pytest.fixture
def x(generator):
    return torch.randn(5, 1, 2, 2, dtype=torch.float64, generator=generator)


def brute(data, process, x, t, admitted):
    """Posterior mean point by point with Python numbers."""
    t, rows = torch.as_tensor(t, dtype=torch.float64).expand(len(x)), []
    for x_i, t_i, points in zip(x, t, admitted, strict=True):
        alpha, sigma = process.alpha(t_i).item(), process.sigma(t_i).item()
        exponents = [-((x_i - alpha * data[k]) ** 2).sum().item() / (2 * sigma**2) for k in points]
        weights = [math.exp(e - max(exponents)) for e in exponents]
        rows.append(sum(w * data[k] for w, k in zip(weights, points, strict=True)) / sum(weights))
    return torch.stack(rows)


@pytest.mark.parametrize("process", [VP(), EDM(5.0), RectifiedFlow()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("t", [0.3, torch.linspace(0.1, 0.9, 5, dtype=torch.float64)], ids=["one time", "a time each"])
@pytest.mark.parametrize("chunk", [2**23, 14, 1])
def test_against_brute_force(data, x, process, t, chunk):
    denoiser = EmpiricalDenoiser(data, process, LABELS, chunk=chunk)
    everything = brute(data, process, x, t, [range(7)] * 5)
    torch.testing.assert_close(denoiser(x, t), everything, rtol=1e-10, atol=1e-10)
    label = torch.tensor([0, 1, 3, 4, 1])
    admitted = [[0, 1], [2, 3, 4], [5, 6], range(7), [2, 3, 4]]
    torch.testing.assert_close(denoiser(x, t, label), brute(data, process, x, t, admitted), rtol=1e-10, atol=1e-10)


def test_it_is_the_limit_of_a_mixture_of_narrow_gaussians(data, x):
    process, t = VP(), torch.linspace(0.2, 0.9, 5, dtype=torch.float64)
    narrow = 1e-12 * torch.eye(4, dtype=torch.float64).expand(7, 4, 4)
    exact = GaussianMixture(torch.full((7,), 1 / 7), data.flatten(1), narrow).denoiser(process)
    denoiser = EmpiricalDenoiser(data, process)
    for view in ("__call__", "score", "eps", "velocity"):
        ours, theirs = getattr(denoiser, view)(x, t), getattr(exact, view)(x.flatten(1), t)
        torch.testing.assert_close(ours.flatten(1), theirs, rtol=1e-8, atol=1e-8)


def test_samples_are_points_of_the_data_and_of_the_label(data, generator):
    process, grid = EDM(), time_grid(EDM(), 30)
    x = process.prior_sample((50, 1, 2, 2), generator, float(grid[0]))
    label = torch.tensor([0, 1, 3, 4, 4] * 10)
    y = sample(EmpiricalDenoiser(data.float(), process, LABELS), x, grid, label=label)
    assert y.dtype == torch.float32
    distance, nearest = (y.double()[:, None] - data).flatten(2).norm(dim=2).min(1)
    assert distance.max() < 1e-4
    assert torch.equal(LABELS[nearest][label < 4], label[label < 4]) and len(nearest[label == 4].unique()) > 3


def test_far_from_the_origin_the_weights_keep_their_digits():
    """Centred data: an offset of 1e6 common to all points does not drown a distance of 1."""
    data = 1e6 + torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    process = EDM(1.0)
    d = EmpiricalDenoiser(data, process)(torch.tensor([[1e6 + 0.7]], dtype=torch.float64), 0.5)
    assert d.item() - 1e6 == pytest.approx(1 / (1 + math.exp((0.3**2 - 0.7**2) / (2 * 0.25))), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, x: EmpiricalDenoiser(d.data[0, 0, 0], VP()), "data must be finite points of shape (n, ...), got"),
        (lambda d, x: EmpiricalDenoiser(d.data[:0], VP()), "data must be finite points of shape (n, ...), got"),
        (lambda d, x: EmpiricalDenoiser(d.data * math.nan, VP()), "data must be finite points of shape (n, ...), got"),
        (
            lambda d, x: EmpiricalDenoiser(d.data, VP(), LABELS[:3]),
            "labels must be integers of shape (7,), got torch.int64 (3,)",
        ),
        (
            lambda d, x: EmpiricalDenoiser(d.data, VP(), LABELS.float()),
            "labels must be integers of shape (7,), got torch.float32",
        ),
        (lambda d, x: d(x[:, :, :1], 0.5), "x must have shape (batch, 1, 2, 2), got (5, 1, 1, 2)"),
        (lambda d, x: d(x * math.nan, 0.5), "x must be finite, got NaN or infinity"),
        (lambda d, x: d(x.long(), 0.5), "x must be floating, got torch.int64"),
        (lambda d, x: d(x, 0.0), "t must have a positive sigma, got t = [0.0]"),
        (lambda d, x: d(x, -0.1), "t must lie in [0, 1], got -0.1"),
        (lambda d, x: d(x, torch.full((2,), 0.5)), "t must be a number, a 0-d tensor or one value per sample"),
        (lambda d, x: d(x, 0.5, LABELS), "label must be integers of shape (5,), got torch.int64 (7,)"),
        (lambda d, x: d(x, 0.5, torch.zeros(5)), "label must be integers of shape (5,), got torch.float32 (5,)"),
        (lambda d, x: d(x, 0.5, torch.tensor([0, 1, 2, 3, 4])), "label must be one that the data have, or 4, got 2"),
        (
            lambda d, x: EmpiricalDenoiser(d.data, VP())(x, 0.5, LABELS[:5]),
            "label must be None for data without labels",
        ),
    ],
)
def test_errors_name_what_is_wrong(data, x, call, message):
    with pytest.raises(ValueError) as caught:
        call(EmpiricalDenoiser(data, VP(), LABELS), x)
    assert message in str(caught.value)
