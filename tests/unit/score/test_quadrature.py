"""Quadrature on a time grid, and the weights of the flow's divergence."""

import math

import pytest
import torch

from hjbridge.score.encode import flow_grid
from hjbridge.score.quadrature import flow_weights, quadrature
from hjbridge.sde import DDPM, EDM, VE, VP, Cosine, RectifiedFlow, SubVP


def test_quadrature_is_exact_for_polynomials_and_of_order_six():
    grid = torch.linspace(0, 1, 8, dtype=torch.float64) ** 2 * 3 - 1
    for power in range(7):
        exact = (2.0 ** (power + 1) - (-1.0) ** (power + 1)) / (power + 1)
        error = abs((quadrature(grid) @ grid**power).item() - exact)
        assert error < 1e-13 if power < 6 else error > 1e-3
    errors = []
    for n in (16, 32):
        times = torch.linspace(0, 1, n + 1, dtype=torch.float64) ** 2 * 2
        errors.append(abs((quadrature(times) @ torch.exp(times)).item() - math.expm1(2)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(6, abs=0.6)
    # fewer points than six: all of them; two are the trapezoid rule
    torch.testing.assert_close(quadrature(torch.tensor([1.0, 4.0])), torch.tensor([1.5, 1.5]))


def test_the_weights_of_the_flow_are_those_of_its_rates():
    # div score = -1 / sigma^2 of pure noise: int g^2 / (2 sigma^2) dt = log(ratio_1 / ratio_0)
    for process in (VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()):
        up = flow_grid(process, 40).flip(0)
        weights, volume = flow_weights(process, up)
        growth = process.ratio(up[-1]).log() - process.ratio(up[0]).log()
        assert (weights / process.sigma(up) ** 2).sum().item() == pytest.approx(growth.item(), rel=1e-4)
        assert volume == pytest.approx((process.alpha(up[-1]) / process.alpha(up[0])).log().item(), abs=1e-12)
    # from zero noise, one step: int g^2 / 2 dt = s^2 / 2 for alpha = 1
    weights, volume = flow_weights(EDM(1.0), torch.tensor([0.0, 0.3], dtype=torch.float64))
    assert weights.tolist() == pytest.approx([0.0225, 0.0225]) and volume == 0
