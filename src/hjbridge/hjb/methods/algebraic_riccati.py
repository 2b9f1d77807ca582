"""The Riccati equation of an infinite horizon: its stabilising solution, or the mode that cannot be stabilised."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from hjbridge.hjb.problem import LinearQuadratic


def stabilising(lq: LinearQuadratic, rho: float) -> tuple[Tensor, Tensor]:
    """The stabilising solution of the algebraic Riccati equation, P (n, n), and c, 0-d.

        0 = Q + F'P + PF - P B R^-1 B' P,    F = A - rho/2,    c = tr(S S' P)/(2 rho)

    [X; PX] spans the stable invariant subspace of the Hamiltonian matrix; F - B R^-1 B' P has only decaying modes.

    Args: lq, the matrices, float64. rho: the discount rate.
    Raises: ValueError if there is noise without discount, if a mode cannot be stabilised (names it), or if the
        Hamiltonian matrix has an eigenvalue on the imaginary axis (names it).
    Source: Laub 1979 (ordered Schur form); Kleinman 1968 (Newton step); Hautus 1970 (test of stabilisability).
    """
    n, noise = len(lq.A), lq.S @ lq.S.T
    if rho == 0 and bool(noise.any()):
        raise ValueError(
            "discount must be positive where there is noise, got 0: the cost of an infinite horizon is infinite"
        )
    A, B, Q, R = (matrix.cpu().numpy() for matrix in (lq.A, lq.B, lq.Q, lq.R))
    F, M = A - rho / 2 * np.eye(n), B @ np.linalg.solve(R, B.T)
    _check_stabilisable(F, B, rho)
    q, m = np.linalg.norm(Q, 2), np.linalg.norm(M, 2)
    s = math.sqrt(q / m) if q * m > 0 else 1.0
    H = np.block([[F, -s * M], [-Q / s, -F.T]])
    # P = s U21 U11^-1 for the stable invariant subspace U of the Hamiltonian matrix
    _, U, stable = linalg.schur(H, output="real", sort="lhp")
    spectrum = np.linalg.eigvals(H)
    nearest = spectrum[np.abs(spectrum.real).argmin()]
    if stable != n or abs(nearest.real) <= 1e-10 * np.linalg.norm(H, 2):
        raise ValueError(
            "Q must give a stabilising solution, got a Hamiltonian matrix with the eigenvalue "
            f"{nearest:.6g} on the imaginary axis: the cost is unbounded, or a mode that does not decay costs nothing"
        )
    P = s * np.linalg.solve(U[:n, :n].T, U[n:, :n].T).T
    P = (P + P.T) / 2
    # one Newton step: (F - MP)'P+ + P+(F - MP) + Q + PMP = 0
    P = linalg.solve_continuous_lyapunov((F - M @ P).T, -(Q + P @ M @ P))
    exact = torch.as_tensor((P + P.T) / 2).to(lq.A)
    # c = tr(S S' P)/(2 rho)
    return exact, (noise * exact).sum() / (2 * rho) if rho else exact.new_zeros(())


def _check_stabilisable(F: np.ndarray, B: np.ndarray, rho: float) -> None:
    """Hautus: a mode that grows is out of reach where w'(F - mu) = 0 and w'B = 0."""
    size = float(max(np.linalg.norm(F, 2), np.linalg.norm(B, 2)))
    for mu in np.linalg.eigvals(F):
        left, sigma, _ = np.linalg.svd(np.hstack([F - mu * np.eye(len(F)), B]))
        if mu.real >= -1e-12 * size and sigma[-1] <= 1e-10 * size:
            mode = np.real_if_close(left[:, -1] / left[np.abs(left[:, -1]).argmax(), -1]).conj()
            raise ValueError(
                f"A and B must be stabilisable at discount {rho:g}, got the mode {(np.round(mode, 4) + 0.0).tolist()} "
                f"with eigenvalue {np.real_if_close(mu + rho / 2):.6g}, not below {rho / 2:g}, which no control reaches"
            )
