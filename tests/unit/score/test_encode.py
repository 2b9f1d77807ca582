"""The flow from data to its latent and back: closed forms, orders of the round trip, refusals."""

import math

import pytest
import torch

from hjbridge.score import Denoiser, NoisePredictor, time_grid
from hjbridge.score.encode import decode, encode, flow_grid
from hjbridge.sde import DDPM, EDM, VE, VP, Cosine, GaussianMixture, RectifiedFlow, SubVP

PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
GAUSSIAN = GaussianMixture([1.0], [[0.5, -1.0]], [[[0.6, 0.3], [0.3, 0.4]]])


@each_process
def test_the_default_grid_ends_above_zero_noise(process):
    grid, lowest = flow_grid(process), max(process.ratio(0.0).item(), 1e-3)
    assert grid.shape == (61,) and bool((grid.diff() < 0).all()) and flow_grid(process, 7).shape == (8,)
    ratios = process.ratio(grid)
    assert ratios[-1].item() == pytest.approx(lowest, rel=1e-6)
    assert ratios[0].item() == pytest.approx(min(160.0, process.ratio(1.0).item()), rel=1e-6)
    # Karras: the seventh roots are equally spaced
    assert (ratios ** (1 / 7)).diff().std() < 1e-6


def test_the_default_grid_of_a_chain_of_n_steps_ends_at_its_first():
    for process in (DDPM.linear(), VP()):
        grid = flow_grid(process, steps=1000)
        assert grid[-1].item() == pytest.approx(1e-3, abs=1e-9) and len(grid) == 61


@each_process
def test_a_gaussian_is_encoded_by_the_affine_map(process):
    x = GAUSSIAN.sample(50, torch.Generator().manual_seed(0))
    grid = flow_grid(process)
    start, end = (GAUSSIAN.marginal(process, grid[i]) for i in (-1, 0))
    (v0, q), (v1, _) = (torch.linalg.eigh(m.covariances[0]) for m in (start, end))
    # along each axis of the covariance the deviation scales with sqrt(alpha^2 v + sigma^2)
    exact = end.means + (x - start.means) @ q @ torch.diag((v1 / v0).sqrt()) @ q.mT
    z = encode(GAUSSIAN.denoiser(process), x, grid)
    scale, tolerance = process.sigma(grid[0]).item(), 5e-3 if isinstance(process, DDPM) else 3e-5
    torch.testing.assert_close(z / scale, exact / scale, rtol=0, atol=tolerance)
    torch.testing.assert_close(decode(GAUSSIAN.denoiser(process), exact, grid), x, rtol=0, atol=10 * tolerance)
    if process == PROCESSES[0]:
        assert torch.equal(encode(GAUSSIAN.denoiser(process), x), z)


@pytest.mark.parametrize(
    ("method", "order", "levels"), [("euler", 1, (80, 160)), ("heun", 3, (40, 80)), ("rk4", 5, (40, 80))]
)
def test_the_round_trip_closes_with_the_order_of_the_method(method, order, levels, mixture):
    # the reversed step of an even order cancels the leading error term of the step itself
    process, errors = EDM(10.0), []
    denoiser = mixture.denoiser(process)
    for n in levels:
        grid = process.time_of(torch.logspace(0.5, -1, n + 1, dtype=torch.float64))
        x = mixture.marginal(process, grid[-1]).sample(200, torch.Generator().manual_seed(0))
        back = decode(denoiser, encode(denoiser, x, grid, method), grid, method)
        errors.append((back - x).square().mean().sqrt().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.4), errors


@each_process
def test_the_round_trip_of_the_default_grid(process, mixture):
    x = mixture.sample(200, torch.Generator().manual_seed(0))
    z = encode(mixture.denoiser(process), x)
    back = decode(mixture.denoiser(process), z)
    assert (back - x).abs().mean() < 1e-4 and (back - x).abs().max() < 1e-2
    assert z.std().item() == pytest.approx(process.sigma(flow_grid(process)[0]).item(), rel=0.15)


def test_batches_labels_types_and_graphs(plain, mixture):
    network = plain(lambda x, level, label: label.to(x)[:, None, None, None] * torch.tanh(x))
    denoiser = Denoiser(network, VP(), 1.0, shape=(1, 2, 2), classes=3).requires_grad_(False)
    x, label = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 1])
    grid = flow_grid(VP(), 10)
    whole, halves = (encode(denoiser, x, grid, label=label, batch=batch) for batch in (None, 2))
    torch.testing.assert_close(whole, halves)
    assert whole.dtype == torch.float32 and whole.shape == x.shape and not whole.requires_grad
    assert {len(call[0]) for call in network.calls} == {5, 2, 1}
    assert not torch.allclose(whole, encode(denoiser, x, grid))  # without a label: class 3
    torch.testing.assert_close(encode(denoiser, x, grid)[3], whole[3])
    back = decode(denoiser, whole, grid, label=label, batch=3)
    torch.testing.assert_close(back, decode(denoiser, whole, grid, label=label))
    y = mixture.sample(3, torch.Generator().manual_seed(0)).requires_grad_()
    encode(mixture.denoiser(VP()), y, grid).sum().backward()
    assert y.grad is not None and bool((y.grad != 0).all())
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    assert not encode(Other(lambda x, t: -weight * x), y.detach(), grid).requires_grad


def test_a_noise_predictor_is_walked_to_its_first_step(plain):
    predictor = NoisePredictor(plain(lambda x, k, label: 0 * x + 0.5), DDPM.linear())
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (decode(predictor, encode(predictor, x)) - x).abs().max() < 1e-4


class Other:
    def __init__(self, function, process=PROCESSES[0], shape=None):
        self.function, self.process, self.shape = function, process, shape

    def score(self, x, t):
        return self.function(x, t)


X = torch.ones(3, 2, dtype=torch.float64)
GRID = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X.int()}, ValueError, "must be floating, got torch.int32"),
        ({"x": X[0]}, ValueError, r"must have shape \(n, \.\.\.\) with n > 0, got \(2,\)"),
        ({"x": X / 0}, ValueError, "must be finite, got NaN or infinity"),
        ({"denoiser": Other(lambda x, t: -x, shape=(3,))}, ValueError, r"must have shape \(n, 3\), got \(3, 2\)"),
        ({"denoiser": Other(lambda x, t: x[:, :1])}, ValueError, r"score must return the shape of x, \(3, 2\)"),
        ({"label": torch.zeros(2).long()}, ValueError, r"label must be integers .* got torch.int64 \(2,\)"),
        ({"label": torch.zeros(3)}, ValueError, r"label must be integers .* got torch.float32 \(3,\)"),
        ({"batch": 0}, ValueError, "batch must be at least 1 or None, got 0"),
        ({"method": "rk5"}, ValueError, "method must be one of euler, heun, rk4, taylor15, got 'rk5'"),
        ({"grid": GRID.flip(0)}, ValueError, "grid must be strictly descending"),
        ({"grid": GRID + 0.1, "denoiser": Other(lambda x, t: -x, Cosine())}, ValueError, "finite, got t = 1"),
        ({"denoiser": Other(lambda x, t: x / 0)}, FloatingPointError, r"score must be finite, .* at t = 0\.[19]"),
        ({"denoiser": Other(lambda x, t: x * 1e300)}, FloatingPointError, r"NaN or infinity at t = 0\.\d"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("walk", [encode, decode])
def test_refusals(walk, change, error, message):
    arguments = {"denoiser": Other(lambda x, t: -x), "x": X, "grid": GRID, **change}
    with pytest.raises(error, match=message):
        walk(arguments.pop("denoiser"), arguments.pop("x"), arguments.pop("grid"), **arguments)


@pytest.mark.parametrize("walk", [encode, decode])
def test_zero_noise_is_left_out_by_name(walk, plain):
    denoiser = Denoiser(plain(lambda x, level, label: x), EDM(), 1.0)
    with pytest.raises(ValueError, match=r"grid must leave out t = 0, where sigma = 0.*take grid\[:-1\] \(t must have"):
        walk(denoiser, X, time_grid(EDM(), 5), "rk4")
    with pytest.raises(ValueError, match=r"grid must leave out t = 0, where sigma = 0"):
        walk(Other(lambda x, t: -x / t, EDM()), X, time_grid(EDM(), 5), "heun")
    with pytest.raises(ValueError, match="z must be floating" if walk is decode else "x must be floating"):
        walk(denoiser, X.long())
