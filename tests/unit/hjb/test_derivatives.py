import math

import pytest
import torch

from hjbridge.hjb.derivatives import first, gradient, hessian, second_order

F64 = torch.float64
X = torch.tensor([[0.3, -0.7, 1.1], [1.2, 0.4, -0.5]], dtype=F64)
T = torch.tensor([0.2, 0.9], dtype=F64)


def value(x, t):
    """Its derivatives are written out below."""
    return torch.sin(x[:, 0]) * x[:, 1] ** 2 + torch.exp(x[:, 2] * t)


def slope(x, t):
    a, b, c = x.T
    return torch.stack([torch.cos(a) * b**2, 2 * torch.sin(a) * b, t * torch.exp(c * t)], 1)


def curvature(x, t):
    a, b, c = x.T
    M = torch.zeros(len(x), 3, 3, dtype=F64)
    M[:, 0, 0], M[:, 1, 1], M[:, 2, 2] = -torch.sin(a) * b**2, 2 * torch.sin(a), t**2 * torch.exp(c * t)
    M[:, 0, 1] = M[:, 1, 0] = 2 * torch.cos(a) * b
    return M


def test_gradient_and_hessian_are_those_of_the_formula():
    torch.testing.assert_close(gradient(value, X, T), slope(X, T), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(hessian(value, X, T), curvature(X, T), rtol=1e-14, atol=1e-14)
    assert not gradient(value, X, T).requires_grad and not hessian(value, X, T).requires_grad
    assert not X.requires_grad


def test_gradient_carries_a_graph_only_where_x_requires_one():
    x = X.clone().requires_grad_()
    p = gradient(value, x, T)
    (row,) = torch.autograd.grad(p[:, 0].sum(), x)
    torch.testing.assert_close(row, curvature(X, T)[:, 0], rtol=1e-14, atol=1e-14)


def test_derivatives_under_no_grad():
    with torch.no_grad():
        torch.testing.assert_close(gradient(value, X, T), slope(X, T), rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(hessian(value, X, T), curvature(X, T), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    "flat", [lambda x, t: torch.full((len(x),), 2.0, dtype=F64), lambda x, t: 2 * t, lambda x, t: x[:, 0] * 0 + t]
)
def test_a_value_that_does_not_depend_on_the_state_has_no_slope(flat):
    t = T.clone().requires_grad_()
    assert not gradient(flat, X, t).any() and not hessian(flat, X, t).any()


def test_first_is_row_by_row_and_zero_without_dependence():
    y = X.clone().requires_grad_()
    torch.testing.assert_close(first(value(y, T), y), slope(X, T), rtol=1e-14, atol=1e-14)
    assert not first(torch.ones(2, dtype=F64), y).any()
    assert not first((T.clone().requires_grad_() * 2), y).any()


@pytest.mark.parametrize("columns", [None, 2])
def test_second_order_is_half_the_trace(columns):
    generator = torch.Generator().manual_seed(0)
    sigma = torch.randn((2, 3) if columns is None else (2, 3, columns), generator=generator, dtype=F64)
    square = sigma.square().diag_embed() if columns is None else sigma @ sigma.mT
    expected = torch.einsum("nij,nij->n", square, curvature(X, T)) / 2
    y = X.clone().requires_grad_()
    p = first(value(y, T), y)
    torch.testing.assert_close(second_order(p, y, sigma), expected, rtol=1e-13, atol=1e-13)
    # all sign vectors once: their mean is the trace, whatever the correlations
    k = sigma.shape[-1]
    signs = torch.tensor([[(-1.0) ** (i >> j & 1) for j in range(k)] for i in range(2**k)], dtype=F64)
    probes = signs.unsqueeze(1).expand(-1, 2, -1)
    torch.testing.assert_close(second_order(p, y, sigma, probes), expected, rtol=1e-13, atol=1e-13)
    for chosen in (None, probes):
        bare = second_order(p, y, sigma, chosen, graph=False)
        assert torch.equal(bare, second_order(p, y, sigma, chosen)) and not bare.requires_grad
    assert second_order(p, y, sigma).requires_grad
    one = second_order(p, y, sigma, probes[:1])
    assert (one - expected).abs().max() > 1e-2


def test_a_coordinate_without_noise_is_left_out():
    y = X.clone().requires_grad_()
    sigma = torch.zeros(2, 3, dtype=F64)
    sigma[1, 2] = 2.0
    expected = torch.tensor([0.0, 2 * 0.81 * math.exp(-0.45)], dtype=F64)
    torch.testing.assert_close(second_order(first(value(y, T), y), y, sigma), expected, rtol=1e-14, atol=1e-14)


def test_a_value_of_another_shape_is_refused():
    for function in (gradient, hessian):
        with pytest.raises(ValueError, match=r"value must return shape \(2,\), got \(2, 1\)"):
            function(lambda x, t: x[:, :1], X, T)
