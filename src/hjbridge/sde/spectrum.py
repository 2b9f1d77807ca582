"""Eigenvalues and eigenvectors of covariance matrices, checked."""

from __future__ import annotations

import torch
from torch import Tensor


def spectrum(covariances: Tensor) -> tuple[Tensor, Tensor | None]:
    """Factors of C_k = Q_k diag(v_k) Q_k' of symmetric positive definite matrices.

    Args: covariances (k, d, d). Returns: v (k, d), and Q (k, d, d) or None where all matrices are diagonal (Q = I).
    Raises: ValueError if a matrix is not finite, not symmetric or not positive definite (names it), or if a gradient
    is required: eigenvectors have none where eigenvalues coincide.
    """
    if covariances.requires_grad:
        raise ValueError("covariances must not require a gradient")
    for k, matrix in enumerate(covariances):
        if not bool(matrix.isfinite().all()):
            raise ValueError(f"covariances[{k}] must be finite, got NaN or infinity")
        skew, size = (matrix - matrix.mT).abs().max().item(), matrix.abs().max().item()
        if skew > 1e-6 * size:
            raise ValueError(f"covariances[{k}] must be symmetric, got entries that differ by {skew:g}")
    symmetric = (covariances + covariances.mT) / 2
    variances, axes = torch.linalg.eigh(symmetric)
    smallest, largest = variances.amin(dim=1), variances.amax(dim=1)
    # an eigenvalue below the rounding error of the largest one is not known to be positive
    wrong = smallest <= covariances.shape[-1] * torch.finfo(covariances.dtype).eps * largest
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        raise ValueError(f"covariances[{k}] must be positive definite, got smallest eigenvalue {smallest[k].item():g}")
    diagonal = symmetric.diagonal(dim1=-2, dim2=-1)
    if torch.equal(symmetric, torch.diag_embed(diagonal)):
        return diagonal, None
    return variances, axes
