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
    return GaussianMixture(
        torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64),
        torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.2]], dtype=torch.float64),
        torch.tensor(covariances, dtype=torch.float64),
    )


class Plain(torch.nn.Module):
    """A network from a function f(x, level, label), which keeps what it was called with."""

    def __init__(self, function):
        super().__init__()
        self.function, self.calls = function, []

    def forward(self, x, level, label=None):
        self.calls.append((x, level, label))
        return self.function(x, level, label)


@pytest.fixture
def plain():
    return Plain
