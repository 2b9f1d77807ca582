"""A stochastic control problem: data and batched functions. Its Hamiltonian and minimiser live here, only here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    import gymnasium

    from hjbridge.hjb.solution import Solution

StateFunction = Callable[[Tensor, Tensor], Tensor]
Time = float | int | Tensor
Sense = Literal["min", "max"]
#: fields that make a problem more than linear-quadratic, whatever its matrices
CONSTRAINTS = ("bounds", "control_set", "inside", "obstacle", "minimiser")


@dataclass(frozen=True)
class LinearQuadratic:
    """Matrices of a linear-quadratic problem, constant in time: dX = (A x + B u) dt + S dW.

    Attributes: A (n, n), B (n, m), Q (n, n), R (m, m), G (n, n) or None, S (n, k); float64. Costs carry the half:
    x'Qx/2 + u'Ru/2 while running, x'Gx/2 at the end.
    """

    A: Tensor
    B: Tensor
    Q: Tensor
    R: Tensor
    G: Tensor | None
    S: Tensor


@dataclass(frozen=True)
class ControlProblem:
    """Minimise E[ int_0^T e^(-rho t) (l(X,t) + c(X,u,t)) dt + e^(-rho T) Phi(X_T) ], dX = (f + B u) dt + sigma dW.

    x is (n, d), u is (n, m), t a 0-d tensor or (n,), values are (n,). The value V(x, t) solves

        V_t - rho V + min_u { l + c + (f + B u).grad V + tr(sigma sigma' Hess V)/2 } = 0,    V(x, T) = Phi(x),

    without V_t and Phi if the horizon is infinite. Source: Fleming and Soner 2006, chapters III and IV.

    Attributes:
        name; dim, controls: numbers d of states and m of controls (0: nothing to decide).
        drift: f(x, t) -> (n, d). control_matrix: B, a tensor (d, m) or a function (x, t) -> (n, d, m).
        dispersion: sigma, a number s (s times the identity), a tensor (d, k), or a function (x, t) that returns (n, d),
            one Brownian motion per coordinate, or (n, d, k); (x, t, u) if `controlled_noise`.
        control_cost: R (m, m) for c = u'Ru/2, or a function c(x, u, t) -> (n,).
        running_cost: l(x, t) -> (n,). terminal_cost: Phi(x) -> (n,). horizon: T, or None. discount: rho >= 0.
        control_set: the finitely many allowed controls (K, m). bounds: lowest and highest control, each (m,).
        minimiser: u*(x, t, p, M) -> (n, m) with p = grad V (n, d), M = Hess V (n, d, d): for a cost c that is neither
            quadratic nor enumerated.
        inside: x -> (n,) of bool; the problem ends on leaving, at the cost exit_cost(x, t). obstacle: psi(x, t), what
            stopping costs (or pays); stopping is then allowed at any time.
        sense: "min", or "max" where every cost is a reward.
        initial: (n, generator) -> (n, d), where paths start. box: lowest and highest state, each (d,), where the
            problem is of interest: the default domain of a grid. periodic: axes of `box` that close on themselves.
        grid: arguments that `Grid()` takes for this problem in place of its own defaults.
        linear_quadratic: matrices, if it is such a problem. exact: a `Solution` in closed form or by quadrature.
        states, actions: names with units, for figures. arguments: how `hjbridge.hjb.problems.NAME` was called.
    Raises: ValueError, naming the argument, the value and what is accepted.
    """

    name: str
    dim: int
    controls: int
    drift: StateFunction
    control_matrix: Tensor | StateFunction
    dispersion: float | Tensor | Callable[..., Tensor]
    control_cost: Tensor | Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    running_cost: StateFunction | None = None
    terminal_cost: Callable[[Tensor], Tensor] | None = None
    horizon: float | None = None
    discount: float = 0.0
    control_set: Tensor | None = None
    bounds: tuple[Tensor, Tensor] | None = None
    minimiser: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    controlled_noise: bool = False
    inside: Callable[[Tensor], Tensor] | None = None
    exit_cost: StateFunction | None = None
    obstacle: StateFunction | None = None
    sense: Sense = "min"
    initial: Callable[[int, torch.Generator | None], Tensor] | None = None
    box: tuple[Tensor, Tensor] | None = None
    periodic: tuple[int, ...] = ()
    grid: Mapping[str, Any] = field(default_factory=dict)
    linear_quadratic: LinearQuadratic | None = None
    exact: Solution | None = None
    states: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dim < 1 or self.controls < 0:
            raise ValueError(f"dim must be positive and controls not negative, got {self.dim} and {self.controls}")
        if self.sense not in ("min", "max"):
            raise ValueError(f"sense must be min or max, got {self.sense!r}")
        if self.horizon is not None and not 0 < self.horizon < math.inf:
            raise ValueError(f"horizon must be positive and finite, or None, got {self.horizon}")
        if not 0 <= self.discount < math.inf:
            raise ValueError(f"discount must be finite and not negative, got {self.discount}")
        if self.horizon is not None and self.terminal_cost is None:
            raise ValueError("terminal_cost must be given with a horizon, got None")
        if self.inside is not None and self.exit_cost is None:
            raise ValueError("exit_cost must be given with inside, got None")
        if isinstance(self.control_matrix, Tensor) and self.control_matrix.shape != (self.dim, self.controls):
            shape = tuple(self.control_matrix.shape)
            raise ValueError(f"control_matrix must have shape {(self.dim, self.controls)}, got {shape}")
        if isinstance(self.dispersion, Tensor) and (self.dispersion.ndim != 2 or len(self.dispersion) != self.dim):
            raise ValueError(f"dispersion must have shape ({self.dim}, k), got {tuple(self.dispersion.shape)}")
        if isinstance(self.dispersion, float | int) and not 0 <= self.dispersion < math.inf:
            raise ValueError(f"dispersion must be finite and not negative, got {self.dispersion}")
        for name in ("dispersion", "control_matrix", "control_set"):
            given = getattr(self, name)
            if isinstance(given, Tensor) and not bool(given.isfinite().all()):
                raise ValueError(f"{name} must be finite, got {given[~given.isfinite()][0].item()}")
        if self.box is not None:
            low, high = self.box
            fits = low.shape == high.shape == (self.dim,) and bool((low.isfinite() & high.isfinite()).all())
            if not fits or not bool((low < high).all()):
                got = f"{low.tolist()} and {high.tolist()}"
                raise ValueError(f"box must be two finite vectors ({self.dim},), low < high, got {got}")
        self._check_control()

    def _check_control(self) -> None:
        if self.controls == 0:
            return
        if isinstance(self.control_cost, Tensor):
            check_definite("control_cost", self.control_cost, self.controls)
            if self.sense == "max":
                raise ValueError("control_cost must be a function of (x, u, t) where sense is max, got a matrix")
            if self.bounds is not None and bool((self.control_cost - self.control_cost.diag().diag()).any()):
                raise ValueError("control_cost must be diagonal where bounds are given, got off-diagonal entries")
        elif self.control_set is None and self.minimiser is None:
            raise ValueError("control_cost must be a matrix unless control_set or minimiser is given")
        if self.control_set is not None and (
            self.control_set.ndim != 2 or self.control_set.shape[1] != self.controls or len(self.control_set) == 0
        ):
            raise ValueError(f"control_set must have shape (K, {self.controls}), got {tuple(self.control_set.shape)}")
        if self.bounds is not None:
            low, high = self.bounds
            if low.shape != (self.controls,) or high.shape != (self.controls,) or not bool((low < high).all()):
                raise ValueError(f"bounds must be two vectors ({self.controls},), low < high, got {self.bounds}")

    def time(self, x: Tensor, t: Time) -> Tensor:
        """Time as a tensor of the type of x, 0-d or (n,), after checking shape and range; x is checked to be (n, d).

        What exceeds T by rounding, up to 1e-6 T, becomes T. Without horizon any real time will do.

        Raises: ValueError if x is not (n, d) or not finite, t is outside [0, T], not finite, or has another length.
        """
        if x.ndim != 2 or x.shape[1] != self.dim or not x.is_floating_point():
            raise ValueError(f"x must be floating, of shape (n, {self.dim}), got {x.dtype} {tuple(x.shape)}")
        if not bool(x.isfinite().all()):
            raise ValueError("x must be finite, got NaN or infinity")
        t = torch.as_tensor(t, device=x.device, dtype=x.dtype)
        if t.ndim > 1 or (t.ndim == 1 and len(t) != len(x)):
            raise ValueError(f"t must be a number or of shape ({len(x)},), got shape {tuple(t.shape)}")
        if self.horizon is None:
            check_finite(t=t)
            return t
        # a time that was rounded to float32 may lie a little beyond T
        outside = ~((t >= 0) & (t <= self.horizon * (1 + 1e-6)))
        if bool(outside.any()):
            raise ValueError(f"t must lie in [0, {self.horizon:g}], got {t[outside].flatten()[0].item():g}")
        return t.clamp(max=self.horizon)

    def input_matrix(self, x: Tensor, t: Tensor) -> Tensor:
        """B at x, of shape (n, d, m)."""
        if isinstance(self.control_matrix, Tensor):
            return self.control_matrix.to(x).expand(len(x), -1, -1)
        return self.control_matrix(x, t)

    def velocity(self, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """f + B u, of shape (n, d)."""
        drift = self.drift(x, t)
        return drift if self.controls == 0 else drift + (self.input_matrix(x, t) @ u.unsqueeze(-1)).squeeze(-1)

    def noise(self, x: Tensor, t: Tensor, u: Tensor | None = None) -> Tensor:
        """sigma at x as (n, d), one Brownian motion per coordinate, or as a matrix (n, d, k)."""
        if isinstance(self.dispersion, Tensor):
            return self.dispersion.to(x).expand(len(x), -1, -1)
        if not callable(self.dispersion):
            return torch.full_like(x, float(self.dispersion))
        return self.dispersion(x, t, u) if self.controlled_noise else self.dispersion(x, t)

    def cost(self, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """l + c at x under the control u, of shape (n,). Raises: ValueError if x, t or u is not finite."""
        check_finite(x=x, t=t, u=u)
        total = x.new_zeros(len(x)) if self.running_cost is None else self.running_cost(x, t)
        return total + self.control_price(x, t, u)

    def control_price(self, x: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """c(x, u, t), of shape (n,): u'Ru/2 or the given function."""
        if self.controls == 0 or self.control_cost is None:
            return x.new_zeros(len(x))
        if isinstance(self.control_cost, Tensor):
            return ((u @ self.control_cost.to(u)) * u).sum(1) / 2
        return self.control_cost(x, u, t)

    def hamiltonian(self, x: Tensor, t: Tensor, u: Tensor, p: Tensor, M: Tensor | None = None) -> Tensor:
        """H = l + c + p.(f + B u) + tr(sigma sigma' M)/2, of shape (n,); without M the first-order part."""
        value = self.cost(x, t, u) + (p * self.velocity(x, t, u)).sum(1)
        return value if M is None else value + half_trace(self.noise(x, t, u), M)

    def best_control(self, x: Tensor, t: Tensor, p: Tensor, M: Tensor | None = None) -> Tensor:
        """The control (n, m) that minimises (maximises) the Hamiltonian, given p = grad V (n, d) and M = Hess V.

            quadratic cost     u = -R^-1 B'p, clipped to the bounds (then R is diagonal)
            finite set         the best of its members, the first of equals
            own minimiser      what the problem gives

        Raises: ValueError if the dispersion depends on the control and M is missing, or an argument is not finite.
        """
        check_finite(x=x, t=t, p=p, M=M)
        if self.controls == 0:
            return x.new_zeros(len(x), 0)
        if self.controlled_noise and M is None:
            raise ValueError("M must be given: the dispersion of this problem depends on the control")
        if self.minimiser is not None:
            return self.minimiser(x, t, p, x.new_zeros(len(x), self.dim, self.dim) if M is None else M)
        push = (self.input_matrix(x, t).mT @ p.unsqueeze(-1)).squeeze(-1)
        if self.control_set is not None:
            return self._enumerate(x, t, push, M)
        assert isinstance(self.control_cost, Tensor)
        # u = -R^-1 B' p
        u = -torch.linalg.solve(self.control_cost.to(p), push.unsqueeze(-1)).squeeze(-1)
        return u if self.bounds is None else u.clamp(*(end.to(u) for end in self.bounds))

    def _enumerate(self, x: Tensor, t: Tensor, push: Tensor, M: Tensor | None) -> Tensor:
        assert self.control_set is not None
        members = self.control_set.to(x)
        prices = []
        for member in members:
            u = member.expand(len(x), -1)
            price = self.control_price(x, t, u) + (push * u).sum(1)
            if self.controlled_noise and M is not None:
                price = price + half_trace(self.noise(x, t, u), M)
            prices.append(price)
        table = torch.stack(prices)
        return members[table.argmin(0) if self.sense == "min" else table.argmax(0)]

    def better(self, a: Tensor, b: Tensor) -> Tensor:
        """The smaller of two values where costs are minimised, the larger where rewards are maximised."""
        return torch.minimum(a, b) if self.sense == "min" else torch.maximum(a, b)

    def to_gym(self, dt: float, seed: int | None = None) -> gymnasium.Env[Any, Any]:
        """The problem as a gymnasium environment with the time step dt: see `hjbridge.hjb.gym.ControlEnv`.

        Raises: ImportError, with how to install it, if gymnasium is missing; ValueError as `ControlEnv`.
        """
        from hjbridge.hjb.gym import ControlEnv

        return ControlEnv(self, dt, seed)


def half_trace(sigma: Tensor, M: Tensor) -> Tensor:
    """tr(sigma sigma' M)/2 of shape (n,) for sigma (n, d) or (n, d, k) and M (n, d, d)."""
    if sigma.ndim == 2:
        return (sigma**2 * M.diagonal(dim1=-2, dim2=-1)).sum(1) / 2
    return (sigma * (M @ sigma)).sum((1, 2)) / 2


def check_finite(**given: Tensor | float | None) -> None:
    """Check that every tensor or number is finite; names the first that is not, what it has and where."""
    for name, value in given.items():
        bad = None if value is None else ~torch.as_tensor(value).isfinite()
        if bad is not None and bool(bad.any()):
            row = tuple(bad.nonzero()[0].tolist())
            where = f" at {row}" if row else ""
            raise ValueError(f"{name} must be finite, got {torch.as_tensor(value)[row].item()}{where}")


def check_symmetric(name: str, matrix: Tensor, n: int) -> Tensor:
    """The matrix after checking that it is a finite, symmetric (n, n)."""
    if matrix.shape != (n, n):
        raise ValueError(f"{name} must have shape ({n}, {n}), got {tuple(matrix.shape)}")
    if not bool(matrix.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    gap = (matrix - matrix.T).abs().max().item()
    if gap > 1e-10 * matrix.abs().max().item():
        raise ValueError(f"{name} must be symmetric, got entries that differ by {gap:.3g}")
    return matrix


def check_definite(name: str, matrix: Tensor, n: int) -> Tensor:
    """The matrix after checking that it is symmetric and positive definite; names the smallest eigenvalue."""
    lowest = torch.linalg.eigvalsh(check_symmetric(name, matrix, n).double())[0].item()
    if not lowest > 0:
        raise ValueError(f"{name} must be positive definite, got the eigenvalue {lowest:.6g}")
    return matrix
