"""Values from transitions: TD(0), mean-square TD, the martingale loss, fitted Q iteration and LSPI, all linear.

A value is w.phi(x) with features phi (k,), an action value w.phi(x, a). A transition is a row of `features` (n, k), the
cost of its step (n,), and the features of the state after it. Costs are minimised. `weights` (n,) are the probabilities
of the rows; with the nodes of a quadrature in place of samples they give the estimators' limits without sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hjbridge.hjb.problem import check_finite

#: weights w (k,) -> features (n, k) of the action that is best under w, in the state after each transition
Greedy = Callable[[Tensor], Tensor]


def td0(
    features: Tensor, next_features: Tensor, costs: Tensor, discount: float, weights: Tensor | None = None
) -> Tensor:
    """Where TD(0) comes to rest: the error of a step is orthogonal to the features.

        E[ phi (c + gamma w.phi' - w.phi) ] = 0.

    Args: features phi (n, k); next_features phi' (n, k); costs c of the step (n,); discount gamma of the step.
    Returns: w (k,). Raises: ValueError for other shapes, a discount outside [0, 1], features that do not determine w,
        and as everywhere in this module for an argument that is not finite.
    Source: Bradtke and Barto 1996 (LSTD).
    """
    p = _probabilities(features, next_features, costs, discount, weights)
    left = features.T * p
    # E[phi (phi - gamma phi')'] w = E[phi c]
    return _solve(left @ (features - discount * next_features), left @ costs)


def mean_square_td(
    features: Tensor, next_features: Tensor, costs: Tensor, discount: float, weights: Tensor | None = None
) -> Tensor:
    """The w (k,) that minimises E (c + gamma w.phi' - w.phi)^2, arguments as in `td0`.

    With noise of variance sigma^2 dt in a step this is dominated, for dt to 0, by the quadratic variation of the value,
    E (sigma V')^2 dt, which is least for a constant (Baird 1995; Jia and Zhou 2022).
    """
    p = _probabilities(features, next_features, costs, discount, weights)
    change = features - discount * next_features
    left = change.T * p
    # E[(phi - gamma phi')(phi - gamma phi')'] w = E[(phi - gamma phi') c]
    return _solve(left @ change, left @ costs)


def martingale_loss(values: Tensor, costs: Tensor, discount: float, terminal: Tensor) -> Tensor:
    """Mean over paths and steps of (M_N - M_j)^2, which for the true value is the least possible.

        M_j = gamma^j V(X_j) + sum_{i<j} gamma^i c_i,        M_N = gamma^N terminal + sum_{i<N} gamma^i c_i.

    Args: values V(X_j) (N, n), N steps of n paths; costs c_j (N, n); terminal: the value at the end (n,).
    Returns: 0-d, differentiable in `values`. Source: Jia and Zhou 2022, "martingale loss".
    """
    returns = _returns(costs, discount, terminal)
    if values.shape != costs.shape:
        raise ValueError(f"values must have shape {tuple(costs.shape)}, got {tuple(values.shape)}")
    check_finite(values=values)
    worth = _worth(costs, discount)
    # M_N - M_j = gamma^j (G_j - V_j)
    return (worth * (returns - values)).square().mean()


def martingale_fit(features: Tensor, costs: Tensor, discount: float, terminal: Tensor) -> Tensor:
    """The w (k,) that minimises `martingale_loss` for V = w.phi: what is still to pay, regressed with weights gamma^2j.

    Args: features phi(X_j) (N, n, k); costs (N, n); terminal (n,), zero where gamma^N is small enough.
    """
    returns = _returns(costs, discount, terminal)
    if features.ndim != 3 or features.shape[:2] != costs.shape:
        raise ValueError(f"features must have shape {(*costs.shape, 'k')}, got {tuple(features.shape)}")
    check_finite(features=features)
    weighted = (features * _worth(costs, discount).square().unsqueeze(-1)).flatten(0, 1).T
    # sum gamma^2j phi phi' w = sum gamma^2j phi G
    return _solve(weighted @ features.flatten(0, 1), weighted @ returns.flatten())


def fitted_q_iteration(
    features: Tensor, greedy: Greedy, costs: Tensor, discount: float, iterations: int, start: Tensor | None = None
) -> Tensor:
    """Regress c + gamma Q_k(x', best action under Q_k) on the features, again and again.

    Args: features phi(x, a) (n, k); greedy: w -> phi(x', best a) (n, k), e.g. `enumerated` or `quadratic_greedy`;
        costs (n,); discount; iterations; start, the first w, zero by default.
    Returns: every w, (iterations + 1, k). Nothing makes the sequence converge unless the regression is an averager
        (Gordon 1995).
    Raises: ValueError for other shapes, features that do not determine w, or an argument that is not finite;
        FloatingPointError when it has diverged beyond floating point.
    Source: Ernst, Geurts and Wehenkel 2005.
    """
    w = _first(features, start)
    found = [w]
    p = _probabilities(features, _chosen(greedy, w), costs, discount, None)
    left = features.T * p
    gram = _determined(left @ features)
    for k in range(iterations):
        # w <- regression of c + gamma w.phi(x', a*) on phi
        w = torch.linalg.solve(gram, left @ (costs + discount * (greedy(w) @ w)))
        if not bool(w.isfinite().all()):
            raise FloatingPointError(f"fitted Q iteration has diverged at iteration {k + 1}")
        found.append(w)
    return torch.stack(found)


def lspi(
    features: Tensor, greedy: Greedy, costs: Tensor, discount: float, iterations: int, start: Tensor | None = None
) -> Tensor:
    """Least-squares policy iteration: the fixed point of TD(0) for the policy that is best under the last one.

    Arguments, result and errors as in `fitted_q_iteration`. Source: Lagoudakis and Parr 2003.
    """
    w = _first(features, start)
    found = [w]
    for _ in range(iterations):
        w = td0(features, _chosen(greedy, w), costs, discount)
        found.append(w)
    return torch.stack(found)


def enumerated(next_features: Tensor) -> Greedy:
    """Best action by trying all: next_features (n, A, k) holds phi(x', a) for each of A actions."""

    def greedy(w: Tensor) -> Tensor:
        best = (next_features @ w).argmin(1)
        return next_features[torch.arange(len(best), device=best.device), best]

    return greedy


def quadratic_features(x: Tensor, u: Tensor) -> Tensor:
    """1 and the products z_i z_j, i <= j, of z = (x, u), x (n, d), u (n, m): (n, 1 + D (D + 1)/2) with D = d + m."""
    z = torch.cat([x, u], 1)
    i, j = torch.triu_indices(z.shape[1], z.shape[1])
    return torch.cat([torch.ones_like(z[:, :1]), z[:, i] * z[:, j]], 1)


def quadratic_gain(w: Tensor, dim: int, controls: int) -> Tensor:
    """K (m, d) of the best control u = -K x of an action value w'z, z the `quadratic_features`; zero for w = 0.

    Raises: ValueError if w is not finite, or the action value has no minimum in u (names the eigenvalue).
    """
    check_finite(w=w)
    size = dim + controls
    M = w.new_zeros(size, size)
    i, j = torch.triu_indices(size, size)
    M[i, j] = w[1:]
    M = (M + M.T) / 2
    if bool((w == 0).all()):
        return w.new_zeros(controls, dim)
    lowest = torch.linalg.eigvalsh(M[dim:, dim:])[0].item()
    if not lowest > 0:
        raise ValueError(f"the action value must have a minimum in u, got the curvature {lowest:.3g}")
    # z'Mz is least at u = -M_uu^-1 M_ux x
    return torch.linalg.solve(M[dim:, dim:], M[dim:, :dim])


def quadratic_greedy(x: Tensor, controls: int) -> Greedy:
    """Best control in closed form for `quadratic_features`, in the states x (n, d) after each transition."""
    return lambda w: quadratic_features(x, -x @ quadratic_gain(w, x.shape[1], controls).T)


def _worth(costs: Tensor, discount: float) -> Tensor:
    return (discount ** torch.arange(len(costs), dtype=costs.dtype, device=costs.device)).unsqueeze(1)


def _returns(costs: Tensor, discount: float, terminal: Tensor) -> Tensor:
    if costs.ndim != 2 or terminal.shape != costs.shape[1:]:
        shapes = f"{tuple(costs.shape)} and {tuple(terminal.shape)}"
        raise ValueError(f"costs and terminal must have shapes (N, n) and (n,), got {shapes}")
    _check_discount(discount)
    check_finite(costs=costs, terminal=terminal)
    still, returns = terminal, torch.empty_like(costs)
    for j in reversed(range(len(costs))):
        # G_j = c_j + gamma G_j+1
        still = costs[j] + discount * still
        returns[j] = still
    return returns


def _first(features: Tensor, start: Tensor | None) -> Tensor:
    w = features.new_zeros(features.shape[1]) if start is None else start
    check_finite(start=w)
    return w


def _chosen(greedy: Greedy, w: Tensor) -> Tensor:
    chosen = greedy(w)
    check_finite(**{"features of greedy": chosen})
    return chosen


def _check_discount(discount: float) -> None:
    if not 0 <= discount <= 1:
        raise ValueError(f"discount must lie in [0, 1], got {discount}")


def _probabilities(
    features: Tensor, next_features: Tensor, costs: Tensor, discount: float, weights: Tensor | None
) -> Tensor:
    _check_discount(discount)
    if features.ndim != 2 or next_features.shape != features.shape or costs.shape != features.shape[:1]:
        shapes = f"{tuple(features.shape)}, {tuple(next_features.shape)} and {tuple(costs.shape)}"
        raise ValueError(f"features, next features and costs must have shapes (n, k), (n, k) and (n,), got {shapes}")
    check_finite(features=features, next_features=next_features, costs=costs)
    if weights is None:
        return torch.full_like(costs, 1 / len(costs))
    if weights.shape != costs.shape or bool((weights < 0).any()) or not math.isclose(weights.sum().item(), 1.0):
        raise ValueError(f"weights must be {len(costs)} probabilities, got shape {tuple(weights.shape)}")
    return weights


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve(_determined(matrix), right)


def _determined(matrix: Tensor) -> Tensor:
    rank = torch.linalg.matrix_rank(matrix).item()
    if rank < len(matrix):
        raise ValueError(f"the features must determine the weights, got rank {rank} for {len(matrix)} features")
    return matrix
