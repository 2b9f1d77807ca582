import pytest
import torch

from hjbridge.sde.mixture import GaussianMixture


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def mixture():
    """Three unequal, correlated components in two dimensions, float64."""
    covariances = [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]], [[0.2, -0.1], [-0.1, 0.3]]]
    return GaussianMixture([0.2, 0.5, 0.3], [[1.5, 0.0], [-1.0, 1.0], [0.0, -1.2]], covariances)
