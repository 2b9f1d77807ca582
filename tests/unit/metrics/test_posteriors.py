import pytest
import torch

from hjbridge.metrics.posteriors import floors
from hjbridge.sde import GaussianMixture

LAW = GaussianMixture([0.3, 0.7], [[-1.0, 0.0], [1.0, 0.5]], 0.2 * torch.eye(2).expand(2, 2, 2))


def test_exact_draws_are_at_one_and_shifted_ones_far_away():
    exact = floors(LAW.sample, LAW, 200, range(60))
    assert len(exact) == 60 and sum(exact) / 60 == pytest.approx(1, abs=0.3)
    far = floors(lambda n, rng: LAW.sample(n, rng) + torch.tensor([1.0, 0.0]), LAW, 200, range(5))
    assert min(far) > 20


def test_a_seed_gives_one_number_and_errors_are_named():
    assert floors(LAW.sample, LAW, 50, [3, 4]) == floors(LAW.sample, LAW, 50, [3, 4])
    with pytest.raises(ValueError, match="n must be at least 2 and seeds not empty, got 1"):
        floors(LAW.sample, LAW, 1, [0])
    with pytest.raises(ValueError, match=r"draw must return shape \(9, 2\), got \(9, 1\)"):
        floors(lambda n, rng: torch.zeros(n, 1), LAW, 9, [0])
