"""Difference matrices on a lattice, and the generator of a controlled process built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import LinearOperator, bicgstab, splu

from hjbridge.hjb.schemes.lattice import Lattice

Scheme = Literal["upwind", "hybrid", "central"]
ROUNDS = 100
NEVER_ENDS = "a policy has no finite value on this grid, its process never ends: try a semi-Lagrangian scheme of Grid"


@dataclass(frozen=True)
class Stencils:
    """Differences along every axis as vectors of entries on one common sparsity pattern (CSR).

    Attributes: size N; rows, cols (z,), start (N + 1,), diagonal (N,): the pattern and where its diagonal is; forward,
    backward, central (d, z): first differences of order 1, 1, 2; second, closed (d, z): second differences, of which
    `second` is zero at open ends and `closed` takes there that of the quadratic through the last three points; cross
    (d, d, z), central in both.
    At open ends forward and backward differences that would leave the lattice are zero. spacing (2, d, N): distances to
    the neighbours above and below, infinite (1e300) where one is missing.
    """

    size: int
    rows: np.ndarray
    cols: np.ndarray
    start: np.ndarray
    diagonal: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    central: np.ndarray
    second: np.ndarray
    closed: np.ndarray
    cross: np.ndarray
    spacing: np.ndarray
    banded: bool

    def apply(self, entries: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Matrix times v (N,), for entries (z,)."""
        return sparse.csr_matrix((entries, self.cols, self.start), shape=(self.size, self.size)) @ v

    def centred(self, b: np.ndarray, a: np.ndarray, i: int, scheme: Scheme) -> np.ndarray:
        """Where the drift along axis i is differenced centrally, for b (N,) and a = (sigma sigma')_ii (N,).

        hybrid: where a >= |b| h, with h the spacing ahead, so that no off-diagonal entry becomes negative.
        """
        if scheme == "hybrid":
            # a missing neighbour is infinitely far away: more than 1e308 is as good as 1e300
            with np.errstate(over="ignore"):
                return np.abs(b) * np.where(b > 0, self.spacing[0, i], self.spacing[1, i]) <= a
        return np.full(self.size, scheme == "central")

    def generator(self, drift: np.ndarray, covariance: np.ndarray, scheme: Scheme) -> np.ndarray:
        """Entries of L = b.D + a:D2/2, for b (N, d) and a = sigma sigma' (N, d, d).

            upwind    b+ D+ + b- D-, no noise across open ends: off-diagonal entries >= 0, rows sum to zero
            hybrid    the same with central differences wherever they keep that property
            central   differences of second order; exact for quadratic functions, at the ends too

        Mixed second derivatives would break the property and are taken by central only.
        Source: Kushner and Dupuis 2001, section 5.3; Wang and Forsyth 2008 (hybrid).
        """
        total = np.zeros(len(self.rows))
        for i in range(drift.shape[1]):
            b, a = drift[:, i], covariance[:, i, i]
            middle = self.centred(b, a, i, scheme)
            # b (V_{i+1} - V_{i-1})/(2h) or b+ (V_{i+1} - V_i)/h + b- (V_i - V_{i-1})/h
            total += np.where(middle, b, 0)[self.rows] * self.central[i]
            total += np.where(middle, 0, np.maximum(b, 0))[self.rows] * self.forward[i]
            total += np.where(middle, 0, np.minimum(b, 0))[self.rows] * self.backward[i]
            # a (V_{i+1} - 2 V_i + V_{i-1})/(2 h^2)
            total += a[self.rows] * (self.closed[i] if scheme == "central" else self.second[i]) / 2
            for j in range(i):
                if np.any(covariance[:, i, j]):
                    if scheme != "central":
                        raise ValueError(f"scheme must be central or semi-lagrangian where noises are correlated, got "
                                         f"{scheme}: mixed derivatives break its maximum principle")  # fmt: skip
                    total += covariance[self.rows, i, j] * self.cross[i, j]
        return total

    def solve(self, entries: np.ndarray, right: np.ndarray, guess: np.ndarray | None = None) -> np.ndarray:
        """v with (matrix of the entries) v = right, by a banded solve in 1-D and sparse LU otherwise.

        In 3-D, where LU fills up, a guess (N,) is first improved by BiCGStab, scaled by the diagonal, to a residual of
        1e-13 |right|; LU steps in where `ROUNDS` rounds do not lead there.

        Raises: FloatingPointError if the matrix is singular.
        """
        if guess is not None and len(self.forward) == 3:
            matrix = sparse.csr_matrix((entries, self.cols, self.start), shape=(self.size, self.size))
            scale = LinearOperator(matrix.shape, matvec=lambda r: r / entries[self.diagonal], dtype=np.float64)
            found, missed = bicgstab(matrix, right, guess, rtol=1e-13, atol=0.0, maxiter=ROUNDS, M=scale)
            if missed == 0 and np.isfinite(found).all():
                return found
        try:
            if self.banded:
                bands = np.zeros((5, self.size))
                bands[2 + self.rows - self.cols, self.cols] = entries
                return linalg.solve_banded((2, 2), bands, right, overwrite_ab=True, check_finite=False)
            matrix = sparse.csr_matrix((entries, self.cols, self.start), shape=(self.size, self.size))
            return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.1).solve(right)
        except (linalg.LinAlgError, RuntimeError) as error:
            raise FloatingPointError(NEVER_ENDS) from error


def stencils(lattice: Lattice, *, cross: bool = False) -> Stencils:
    """All difference matrices of a lattice. Args: cross, also the mixed second differences."""
    d, size = len(lattice.axes), int(np.prod(lattice.shape))
    names = ("forward", "backward", "central", "second", "closed")
    made: dict[tuple[str, int], sparse.csr_matrix] = {}
    for i, (axis, period) in enumerate(zip(lattice.axes, lattice.periods, strict=True)):
        before, after = int(np.prod(lattice.shape[:i])), int(np.prod(lattice.shape[i + 1 :]))
        for name, line in zip(names, _lines(axis, period), strict=True):
            made[name, i] = sparse.kron(sparse.identity(before), sparse.kron(line, sparse.identity(after)), "csr")
    for i in range(d if cross else 0):
        for j in range(i):
            made[f"cross{j}", i] = (made["central", i] @ made["central", j]).tocsr()
    spacing = np.full((2, d, size), 1e300)
    for i, (axis, period) in enumerate(zip(lattice.axes, lattice.periods, strict=True)):
        index = np.unravel_index(np.arange(size), lattice.shape)[i]
        gaps = np.append(np.diff(axis), axis[0] + period - axis[-1] if period else 1e300)
        spacing[:, i] = gaps[index], (gaps if period else np.append(gaps[:-1], 1e300))[index - 1]
    pattern = sum((abs(matrix).sign() for matrix in made.values()), sparse.identity(size, format="csr")).tocsr()
    pattern.sort_indices()
    rows = np.repeat(np.arange(size), np.diff(pattern.indptr))
    keys = rows.astype(np.int64) * size + pattern.indices
    entries = {}
    for key, matrix in made.items():
        coo = matrix.tocoo()
        entries[key] = np.zeros(len(keys))
        entries[key][np.searchsorted(keys, coo.row.astype(np.int64) * size + coo.col)] = coo.data
    mixed = np.zeros((d, d, len(keys) if cross else 0))
    for i in range(d if cross else 0):
        for j in range(i):
            mixed[i, j] = entries[f"cross{j}", i]
    stacked = {name: np.stack([entries[name, i] for i in range(d)]) for name in names}
    return Stencils(
        size=size, rows=rows, cols=pattern.indices.astype(np.int64), start=pattern.indptr,
        diagonal=np.searchsorted(keys, np.arange(size) * (size + 1)), cross=mixed, spacing=spacing,
        banded=d == 1 and not lattice.periods[0], **stacked,
    )  # fmt: skip


def _lines(x: np.ndarray, period: float) -> tuple[sparse.csr_matrix, ...]:
    """Forward, backward, central, second and closed second differences along one axis."""
    n = len(x)
    at = np.arange(n)
    # distances to the neighbours on both sides
    up = np.append(np.diff(x), x[0] + period - x[-1] if period else 1.0)
    down = np.roll(up, 1)
    up, down = (up, down) if period else (np.append(up[:-1], 1.0), np.append(1.0, up[:-1]))

    def line(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> sparse.lil_matrix:
        entries = np.concatenate([low, middle, high])
        columns = np.concatenate([at - 1, at, at + 1]) % n
        return sparse.coo_matrix((entries, (np.tile(at, 3), columns)), shape=(n, n)).tolil()

    zero = np.zeros(n)
    forward, backward = line(zero, -1 / up, 1 / up), line(-1 / down, 1 / down, zero)
    both = up + down
    # the derivatives of the quadratic through three neighbours
    central = line(-up / (down * both), (up - down) / (up * down), down / (up * both))
    second = line(2 / (down * both), -2 / (up * down), 2 / (up * both))
    closed = second.copy()
    if not period:
        forward[n - 1], backward[0] = 0, 0
        second[0], second[n - 1] = 0, 0
        for end, three in ((0, np.array([0, 1, 2])), (n - 1, np.array([n - 1, n - 2, n - 3]))):
            p, q = x[three[1]] - x[end], x[three[2]] - x[end]
            central[end] = closed[end] = 0
            # V' and V'' at the end of the quadratic through it and its two neighbours
            central[end, three] = [-(p + q) / (p * q), q / (p * (q - p)), -p / (q * (q - p))]
            closed[end, three] = [2 / (p * q), -2 / (p * (q - p)), 2 / (q * (q - p))]
    lines = [matrix.tocsr() for matrix in (forward, backward, central, second, closed)]
    for matrix in lines:
        matrix.eliminate_zeros()
    return tuple(lines)
