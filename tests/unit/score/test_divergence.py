"""Divergence: exact against closed forms and autograd, Hutchinson's mean and variance."""

import math

import pytest
import torch

from hjbridge.score.divergence import divergence, signs
from hjbridge.sde import VP


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MATRIX = normal(4, 4, seed=1)
SYMMETRIC = (MATRIX + MATRIX.T) / 2


def test_exact_is_the_trace_of_the_jacobian(mixture):
    x, score = mixture.sample(20, torch.Generator().manual_seed(0)), mixture.denoiser(VP()).score
    v, div = divergence(lambda y: score(y, 0.2), x)
    jacobian = torch.autograd.functional.jacobian(lambda y: score(y, 0.2).sum(0), x)
    torch.testing.assert_close(div, torch.einsum("ini->n", jacobian), rtol=1e-12, atol=1e-12)
    assert torch.equal(v, score(x, 0.2)) and not v.requires_grad and not div.requires_grad


def test_images_are_differentiated_pixel_by_pixel():
    x = normal(3, 2, 2, 2)
    v, div = divergence(lambda y: y**3 + y.flatten(1).sum(1)[:, None, None, None], x)
    # d(x_i^3 + sum x)/dx_i = 3 x_i^2 + 1
    torch.testing.assert_close(div, (3 * x**2 + 1).flatten(1).sum(1))
    assert v.shape == x.shape
    _, estimated = divergence(lambda y: y**3, x, "hutchinson", signs(x, 2))
    torch.testing.assert_close(estimated, (3 * x**2).flatten(1).sum(1))  # a diagonal Jacobian has no variance


def test_no_graph_is_needed_or_left_and_float32_is_summed_in_float64():
    weight = SYMMETRIC.clone().requires_grad_()
    with torch.no_grad():
        v, div = divergence(lambda y: y @ weight, normal(3, 4))
    assert not v.requires_grad and not div.requires_grad and weight.grad is None
    torch.testing.assert_close(div, SYMMETRIC.trace().detach().expand(3))
    v, div = divergence(lambda y: y * y, normal(3, 4).float())
    assert v.dtype == torch.float32 and div.dtype == torch.float64


@pytest.mark.parametrize("matrix", [SYMMETRIC, MATRIX], ids=["symmetric", "any"])
def test_hutchinson_is_unbiased_with_the_variance_of_its_formula(matrix):
    n, generator = 40_000, torch.Generator().manual_seed(3)
    x = normal(n, 4)
    _, div = divergence(lambda y: y @ matrix.T, x, "hutchinson", signs(x, 1, generator))
    pairs = (matrix + matrix.T).triu(1) ** 2
    variance = pairs.sum().item()
    if matrix is SYMMETRIC:
        off = (matrix - matrix.diag().diag()) ** 2
        assert variance == pytest.approx(2 * off.sum().item())
    assert abs(div.mean().item() - matrix.trace().item()) < 4 * math.sqrt(variance / n)
    assert div.var().item() == pytest.approx(variance, rel=0.05)
    # the mean over m probes has 1/m of it
    _, mean = divergence(lambda y: y @ matrix.T, x[:10_000], "hutchinson", signs(x[:10_000], 5, generator))
    assert mean.var().item() == pytest.approx(variance / 5, rel=0.08)
    assert abs(mean.mean().item() - matrix.trace().item()) < 4 * math.sqrt(variance / 50_000)


def test_signs_are_balanced_independent_and_repeatable():
    x = torch.zeros(1000, 3, dtype=torch.float32)
    e = signs(x, 2, torch.Generator().manual_seed(0))
    assert e.shape == (2, 1000, 3) and e.dtype == x.dtype and set(e.unique().tolist()) == {-1.0, 1.0}
    flat = e.movedim(1, 0).flatten(1)
    gram = flat.T @ flat / 1000
    assert (gram - torch.eye(6)).abs().max() < 4 / math.sqrt(1000) and flat.mean(0).abs().max() < 4 / math.sqrt(1000)
    assert torch.equal(e, signs(x, 2, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "trace"}, "divergence must be one of exact, hutchinson, got 'trace'"),
        ({"kind": "hutchinson"}, r"probes must be of shape \(m, 3, 2\) for divergence hutchinson, got None"),
        ({"kind": "hutchinson", "probes": torch.ones(3, 2)}, r"probes must be of shape \(m, 3, 2\)"),
        ({"kind": "hutchinson", "probes": torch.ones(0, 3, 2)}, r"got \(0, 3, 2\)"),
        ({"probes": torch.ones(1, 3, 2)}, r"probes must be None for divergence exact, got \(1, 3, 2\)"),
        ({"function": lambda x: x.sum(1)}, r"function must return the shape of x, \(3, 2\), got \(3,\)"),
        ({"function": torch.zeros_like}, "function must be differentiable in x"),
        ({"function": torch.no_grad()(lambda x: 2 * x)}, r"values without a graph \(under no_grad\?\)"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        divergence(**{"function": lambda x: 2 * x, "x": torch.ones(3, 2), **change})


def test_signs_refuse_no_probe():
    with pytest.raises(ValueError, match="probes must be at least 1, got 0"):
        signs(torch.ones(3, 2), 0)
