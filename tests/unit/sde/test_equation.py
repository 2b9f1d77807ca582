"""Equations: kinds of noise, the noising equation and its reverse."""

import pytest
import torch

from hjbridge.sde import DDPM, EDM, SDE, VE, VP, Cosine, RectifiedFlow, SubVP, forward, reverse
from hjbridge.sde.process import broadcast
from hjbridge.sde.steps import times

PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear(50)]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
T = torch.tensor(0.4, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "dispersion", "kind"),
    [
        ((4, 2), lambda x: 0.3, "scalar"),
        ((4, 2), lambda x: torch.tensor(0.3), "scalar"),
        ((4, 2), lambda x: x.square().sum(1), "scalar"),
        ((4, 2), lambda x: x, "diagonal"),
        ((4, 1, 3, 3), lambda x: x, "diagonal"),
        ((4, 1, 3, 3), lambda x: x[:, 0, 0, 0], "scalar"),
        ((4,), lambda x: x, "scalar"),
        ((4, 2), lambda x: normal(2, 3), "matrix"),
        ((4, 2), lambda x: normal(1, 2, 3), "matrix"),
        ((4, 2), lambda x: x[:, :, None] * normal(3), "matrix"),
        # n = d: the shape alone does not tell
        ((3, 3), lambda x: x, "diagonal"),
        ((3, 3), lambda x: normal(3, 3), "matrix"),
        ((3, 3), lambda x: x.sum(1), "scalar"),
        ((3, 3), lambda x: normal(3, 2), "matrix"),
        ((3, 3), lambda x: x[:, :, None] * normal(3), "matrix"),
        ((1, 1), lambda x: x, "diagonal"),
    ],
)
def test_kind_of_noise(x, dispersion, kind):
    sde = SDE(lambda x, t: -x, lambda x, t: dispersion(x))
    assert sde.kind(normal(*x), T) == kind
    assert SDE(sde.drift).kind(normal(*x), T) == "none" and SDE(sde.drift).diffusion(normal(*x), T) == 0


def test_noise_term_by_kind():
    dw, matrix, each = normal(4, 2), normal(1, 2, 3), normal(4, 2, 3, seed=1)
    wide = normal(4, 3, seed=2)
    torch.testing.assert_close(times(0.5, dw), dw / 2)
    torch.testing.assert_close(times(torch.tensor(0.5), dw), dw / 2)
    torch.testing.assert_close(times(dw[:, 0], dw), dw[:, :1] * dw)
    torch.testing.assert_close(times(dw, dw), dw**2)
    torch.testing.assert_close(times(matrix, wide), torch.einsum("dm,nm->nd", matrix[0], wide))
    torch.testing.assert_close(times(each, wide), torch.einsum("ndm,nm->nd", each, wide))
    assert times(each, wide.float()).dtype == torch.float32


@each_process
@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 2, 2)], ids=["vectors", "images"])
@pytest.mark.parametrize("t", [T, torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)], ids=["one time", "a time each"])
def test_forward_and_reverse_coefficients(process, shape, t):
    x, score = normal(*shape), normal(*shape, seed=1)
    f, g = broadcast(process.drift_coef(t), x), broadcast(process.diffusion(t), x)
    noising = forward(process)
    torch.testing.assert_close(noising.drift(x, t), f * x, rtol=1e-14, atol=0)
    torch.testing.assert_close(noising.diffusion(x, t), process.diffusion(t), rtol=1e-14, atol=0)
    assert noising.ascending is True and noising.kind(x, t) == "scalar"
    for eta in (0.0, 0.5, 1.0, 2.0):
        back = reverse(process, lambda x, t: score, eta)
        # f x - (1 + eta^2)/2 g^2 score, dispersion eta g
        torch.testing.assert_close(back.drift(x, t), f * x - (0.5 + eta**2 / 2) * g**2 * score, rtol=1e-13, atol=0)
        assert back.ascending is (False if eta else None) and back.kind(x, t) == ("scalar" if eta else "none")
        expected = eta * process.diffusion(t) if eta else 0.0
        torch.testing.assert_close(torch.as_tensor(back.diffusion(x, t)), torch.as_tensor(expected), check_dtype=False)
    anderson, default = reverse(process, lambda x, t: score, 1.0), reverse(process, lambda x, t: score)
    assert torch.equal(anderson.drift(x, t), default.drift(x, t))


def test_score_is_called_with_the_time_of_the_process():
    seen = []

    def score(x, t):
        seen.append(t)
        return -x

    reverse(VP(), score).drift(normal(2, 2), T)
    assert len(seen) == 1 and seen[0] is T
