"""When the HJB equation is linear in disguise: the temperature of a linearly solvable problem."""

from __future__ import annotations

import torch
from torch import Tensor

from hjbridge.hjb.problem import ControlProblem, Time

# relative to the largest entry of sigma sigma'
TOLERANCE = 1e-9


def temperature(problem: ControlProblem, x: Tensor, t: Time = 0.0) -> float:
    """The number lam with sigma sigma' = lam B R^-1 B' at all given points, for which psi = e^(-V/lam) is linear:

        psi_t + f.grad psi + tr(sigma sigma' Hess psi)/2 - (l/lam) psi = 0,    psi(x, T) = e^(-Phi(x)/lam)

    Args: x, points (n, d) at which it is checked. t: their times, a number or (n,).
    Returns: lam > 0. Raises: ValueError if no number fits, naming the largest deviation, or if the problem has no or
        a bounded control, a control cost that is not u'Ru/2, an obstacle, a discount rate or rewards.
    Source: Kappen 2005, equations 9 to 12; Fleming and Soner 2006, section VI.3.
    """
    R = _control_cost(problem)
    x = x.detach().double()
    t = problem.time(x, t)
    if not callable(problem.control_matrix) and not callable(problem.dispersion):
        x, t = x[:1], t if t.ndim == 0 else t[:1]
    B, sigma = problem.input_matrix(x, t), problem.noise(x, t)
    diffusion = torch.diag_embed(sigma**2) if sigma.ndim == 2 else sigma @ sigma.mT
    # B R^-1 B'
    reach = B @ torch.linalg.solve(R.to(x), B.mT)
    size = (reach**2).sum().item()
    if size == 0:
        raise ValueError(f"problem must have a control that acts, got B = 0 at x = {x[0].tolist()}")
    lam = (diffusion * reach).sum().item() / size
    deviation, scale = (diffusion - lam * reach).abs().max().item(), diffusion.abs().max().item()
    if not deviation <= TOLERANCE * scale or scale == 0:
        raise ValueError(
            f"B R^-1 B' must be proportional to sigma sigma' for Hopf-Cole, got entries of sigma sigma' that deviate "
            f"from {lam:.6g} B R^-1 B' by up to {deviation:.6g}"
        )
    return lam


def check_points(problem: ControlProblem, n: int = 200) -> tuple[Tensor, Tensor]:
    """Points (n, d) of the box, or where paths start, or around the origin, and times (n,), always the same."""
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(n, problem.dim, generator=generator, dtype=torch.float64)
    t = torch.rand(n, generator=generator, dtype=torch.float64) * (problem.horizon or 1.0)
    if problem.box is not None:
        low, high = (end.double() for end in problem.box)
        return low + (high - low) * share, t
    x = 2 * share - 1 if problem.initial is None else problem.initial(n, generator).double()
    return x, t


def _control_cost(problem: ControlProblem) -> Tensor:
    """R, after refusing every problem that Hopf and Cole's transform does not make linear."""
    refused = {
        "bounds": problem.bounds is not None,
        "control_set": problem.control_set is not None,
        "minimiser": problem.minimiser is not None,
        "obstacle": problem.obstacle is not None,
        "controlled_noise": problem.controlled_noise,
        "discount": problem.discount > 0,
    }
    for name, given in refused.items():
        if given:
            raise ValueError(f"{name} must not be set for Hopf-Cole, got a problem with it: use Grid")
    if problem.sense != "min":
        raise ValueError("sense must be min for Hopf-Cole, got max")
    if problem.controls == 0:
        raise ValueError("controls must be positive for Hopf-Cole, got 0")
    if not isinstance(problem.control_cost, Tensor):
        raise ValueError(f"control_cost must be a positive definite matrix for Hopf-Cole, got {problem.control_cost}")
    return problem.control_cost
