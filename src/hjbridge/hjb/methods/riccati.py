"""Linear-quadratic problems to the last digits: the Riccati equation over a finite, infinite or discounted horizon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev
from torch import Tensor

from hjbridge.hjb.methods.algebraic_riccati import stabilising
from hjbridge.hjb.problem import CONSTRAINTS, ControlProblem, LinearQuadratic, check_definite, check_symmetric
from hjbridge.hjb.solution import Solution

# a panel of time carries so many Chebyshev nodes, spans at most so many time constants, and is cut in two until the
# last coefficients of the right-hand side are so small
NODES, SPAN, TAIL = 16, 2.0, 1e-14


@dataclass(frozen=True)
class Riccati:
    """Solves a problem that has `linear_quadratic`: V(x, t) = x'P(t)x/2 + c(t), u = -R^-1 B'P(t) x.

        -P' = Q + A'P + PA - P B R^-1 B' P - rho P,    P(T) = G,        -c' = tr(S S' P)/2 - rho c,    c(T) = 0

    Finite horizon: P at Chebyshev nodes by the Hamiltonian flow, then one integration of the right-hand side at these
    nodes, panel by panel; what is returned is a polynomial in t, which torch differentiates. Without horizon P' = 0: P
    is the stabilising solution for A - rho/2, by an ordered Schur form and one Newton step, and c = tr(S S' P)/(2 rho);
    that is the least cost among controls under which e^(-rho t) E|X|^2 goes to zero. An infinite horizon without
    discount is accepted without noise only: with noise its cost is infinite, and a cost per unit of time has no V.

    Raises: ValueError (from `solve`) if the problem is not of this kind, R is not positive definite, the value escapes
    to infinity within the horizon (names the time), or a mode cannot be stabilised (names it).
    Source: Anderson and Moore 1990, chapters 2 and 3; Laub 1979 (Schur form); Kleinman 1968 (Newton step).
    """

    def solve(self, problem: ControlProblem, seed: int = 0) -> Solution:
        """The exact solution; nothing is random. Its tensors are on the device of the matrices, float64."""
        lq = _checked(problem)
        if problem.horizon is not None:
            edges, P, c = _panels(lq, problem.discount, problem.horizon)
            return _finite(problem, edges, P, c)
        P, c = stabilising(lq, problem.discount)
        return _infinite(problem, P, c)

    @classmethod
    def restore(cls, problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
        """Rebuild a solution from what `Solution.save` wrote."""
        if "edges" in tensors:
            return _finite(problem, tensors["edges"], tensors["P"], tensors["c"])
        return _infinite(problem, tensors["P"], tensors["c"])


def _checked(problem: ControlProblem) -> LinearQuadratic:
    lq, n, m = problem.linear_quadratic, problem.dim, problem.controls
    if lq is None:
        raise ValueError(f"linear_quadratic must be given for Riccati, got None in the problem {problem.name!r}")
    for name in CONSTRAINTS:
        if getattr(problem, name) is not None:
            raise ValueError(f"{name} must be None for Riccati: with it the value is not quadratic")
    if problem.sense != "min":
        raise ValueError(f"sense must be min for Riccati, got {problem.sense}")
    if problem.horizon is not None and lq.G is None:
        raise ValueError("G must be given with a horizon, got None")
    for name, matrix, shape in (("A", lq.A, (n, n)), ("B", lq.B, (n, m)), ("S", lq.S, (n, lq.S.shape[-1]))):
        if matrix.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(matrix.shape)}")
        if not bool(matrix.isfinite().all()):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    check_symmetric("Q", lq.Q, n)
    check_definite("R", lq.R, m)
    if lq.G is not None:
        check_symmetric("G", lq.G, n)
    return replace(lq, **{k: v.double() for k, v in vars(lq).items() if v is not None})


class _Rule(NamedTuple):
    """Chebyshev nodes in (-1, 1), and the matrices from values there to coefficients, and to those of the integral."""

    nodes: Tensor
    analyse: Tensor
    integrate: Tensor
    synthesise: Tensor


def _rule(like: Tensor) -> _Rule:
    nodes = chebyshev.chebpts1(NODES)
    analyse = np.linalg.inv(chebyshev.chebvander(nodes, NODES - 1))
    integrate = chebyshev.chebint(np.eye(NODES), lbnd=-1) @ analyse
    parts = (nodes, analyse, integrate, chebyshev.chebvander(nodes, NODES))
    return _Rule(*(torch.as_tensor(np.ascontiguousarray(part)).to(like) for part in parts))


def _panels(lq: LinearQuadratic, rho: float, T: float) -> tuple[Tensor, Tensor, Tensor]:
    """Panels of the time to go: edges (J + 1,), and the Chebyshev coefficients of P (J, K, n, n) and of c (J, K)."""
    assert lq.G is not None
    n, rule, one = len(lq.A), _rule(lq.A), torch.eye(len(lq.A)).to(lq.A)
    # discounting shifts the drift: e^(-rho t) is shared by the two factors of x'Px
    F, M = lq.A - rho / 2 * one, lq.B @ torch.linalg.solve(lq.R, lq.B.T)
    q, m, f = (torch.linalg.matrix_norm(a, 2).item() for a in (lq.Q, M, F))
    f = max(f, 1 / T)
    s = max(math.sqrt(q / m), f / m) if m > 0 else max(q / f, 1.0)
    # with tau = T - t and P = s Y X^-1:  d/dtau [X; Y] = [[-F, s M], [Q/s, F']] [X; Y]
    H = torch.cat([torch.cat([-F, s * M], 1), torch.cat([lq.Q / s, F.T], 1)])
    count = max(1, math.ceil(T * max(torch.linalg.matrix_norm(H, 2).item(), rho) / SPAN))
    fractions, flows = (rule.nodes + 1) / 2, list[Tensor]()
    position, level, P, c = 0.0, 0, lq.G, lq.G.new_zeros(())
    edges, found = [0.0], list[tuple[Tensor, Tensor]]()
    while position < count:
        width = T / count * 2.0**-level
        if level == len(flows):
            flows.append(torch.matrix_exp(H * (width * fractions)[:, None, None]))
        X, Y = (flows[level] @ torch.cat([one, P / s])).split(n, 1)
        middle, info = torch.linalg.solve_ex(X.mT, Y.mT)
        middle = s * (middle + middle.mT) / 2
        # dP/dtau = Q + F'P + PF - PMP, at the nodes
        linear, square = middle @ F, middle @ M @ middle
        slope = lq.Q + linear + linear.mT - square
        size = lq.Q.abs().max() + linear.abs().max() + square.abs().max()
        tail = torch.tensordot(rule.analyse[-3:], slope, 1).abs().max()
        if bool(info.any()) or not bool(tail <= TAIL * NODES * size):
            level += 1
            if 2.0**-level < 1e-12 * count:
                time = T - T / count * position
                raise ValueError(f"Q and G must keep the value finite on [0, {T:g}], got an escape at t = {time:.6g}")
            continue
        series = width / 2 * torch.tensordot(rule.integrate, slope, 1)
        series[0] += P
        constant = _constant(rule, c, (middle * (lq.S @ lq.S.T)).sum((1, 2)) / 2, rho, width)
        found.append((series, constant))
        # every T_k is one at the end of the panel
        P, c = (series.sum(0) + series.sum(0).T) / 2, constant.sum()
        position += 2.0**-level
        edges.append(T / count * position)
        if level and position % 2.0 ** (1 - level) == 0:
            level -= 1
    return lq.A.new_tensor(edges), torch.stack([a for a, _ in found]), torch.stack([b for _, b in found])


def _constant(rule: _Rule, start: Tensor, gain: Tensor, rho: float, width: float) -> Tensor:
    """Coefficients (K,) of the c with dc/dtau = gain - rho c on a panel, for gain (K - 1,) at its nodes."""
    tau = width * (rule.nodes + 1) / 2
    # e^(rho tau) c(tau) = c(0) + int_0^tau e^(rho s) gain ds
    integral = rule.synthesise @ (width / 2 * (rule.integrate @ (torch.exp(rho * tau) * gain)))
    series = width / 2 * (rule.integrate @ (gain - rho * torch.exp(-rho * tau) * (start + integral)))
    series[0] += start
    return series


def _finite(problem: ControlProblem, edges: Tensor, P: Tensor, c: Tensor) -> Solution:
    """The solution whose P and c are Chebyshev series on panels of the time to go."""
    assert problem.horizon is not None
    T = problem.horizon

    def part(x: Tensor, go: Tensor, j: int) -> tuple[Tensor, Tensor]:
        low, high = edges[j].item(), edges[j + 1].item()
        basis = _chebyshev(2 * (go - low) / (high - low) - 1, P.shape[1])
        if go.ndim == 0:
            return x @ torch.tensordot(basis, P[j].to(x), 1), (basis @ c[j].to(x)).expand(len(x))
        return ((x @ P[j].to(x)) * basis.T.unsqueeze(-1)).sum(0), basis @ c[j].to(x)

    def pieces(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """P(t) x (n, d) and c(t) (n,)."""
        go = T - t
        panel = torch.searchsorted(edges[1:-1].to(go), go.detach().contiguous(), right=True)
        used = panel.unique().tolist()
        if len(used) < 2:
            return part(x, go, used[0] if used else 0)
        rows = [(panel == j).nonzero().squeeze(1) for j in used]
        parts = [part(x[row], go[row], j) for row, j in zip(rows, used, strict=True)]
        back = torch.cat(rows).argsort()
        return torch.cat([a for a, _ in parts])[back], torch.cat([b for _, b in parts])[back]

    def value(x: Tensor, t: Tensor) -> Tensor:
        # V = x'Px/2 + c
        costate, constant = pieces(x, t)
        return (x * costate).sum(1) / 2 + constant

    return Solution(
        problem, method=Riccati.__name__, value_function=value, gradient_function=lambda x, t: pieces(x, t)[0],
        tensors={"edges": edges, "P": P, "c": c}, meta={"panels": len(P)},
    )  # fmt: skip


def _chebyshev(s: Tensor, count: int) -> Tensor:
    """T_0 to T_(count - 1) at s, 0-d or (n,): (count,) or (n, count)."""
    terms: Sequence[Tensor] = [torch.ones_like(s), s]
    for _ in range(count - 2):
        # T_(k+1) = 2 s T_k - T_(k-1)
        terms = [*terms, 2 * s * terms[-1] - terms[-2]]
    return torch.stack(list(terms), -1)


def _infinite(problem: ControlProblem, P: Tensor, c: Tensor) -> Solution:
    def costate(x: Tensor, t: Tensor) -> Tensor:
        return x @ P.to(x)

    def value(x: Tensor, t: Tensor) -> Tensor:
        return (x * costate(x, t)).sum(1) / 2 + c.to(x)

    return Solution(
        problem, method=Riccati.__name__, value_function=value, gradient_function=costate, tensors={"P": P, "c": c}
    )
