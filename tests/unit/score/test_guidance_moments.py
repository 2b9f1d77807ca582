import math

import pytest
import torch

from hjbridge.score.guidance import Observation, log_evidence, moments, posterior
from hjbridge.score.guidance.moments import believe, nearest_covariance
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.processes import EDM, VP, RectifiedFlow, SubVP

PROCESSES = [VP(), SubVP(), EDM(), RectifiedFlow()]
TIMES = (0.02, 0.3, torch.linspace(0.1, 0.9, 8, dtype=torch.float64))


def conditional(mixture, process, x, t):
    """Mean and covariance of x_0 given one x_t: the observation x_t = alpha x_0 + sigma z, in closed form."""
    matrix = process.alpha(t) * torch.eye(len(x), dtype=x.dtype)
    given = posterior(mixture, Observation(matrix, x, process.sigma(t).item()))
    return given.mean, given.covariance


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_moments_of_a_mixture_are_those_of_its_posterior(mixture, process, generator):
    """Tweedie's formulas, first and second order, against the conjugate posterior given x_t itself."""
    x = torch.randn(8, 2, dtype=torch.float64, generator=generator)
    for t in TIMES:
        mean, covariance = moments(mixture.denoiser(process), x, t)
        for i, (point, time) in enumerate(zip(x, torch.as_tensor(t, dtype=x.dtype).expand(8), strict=True)):
            wanted = conditional(mixture, process, point, time)
            torch.testing.assert_close(mean[i], wanted[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(covariance[i], wanted[1], rtol=1e-8, atol=1e-9)


def test_belief_of_a_gaussian_is_its_posterior_given_both(generator):
    process, t = SubVP(), torch.tensor(0.3, dtype=torch.float64)
    data = GaussianMixture([1.0], [[0.5, -1.0, 0.3]], [[[1.0, 0.6, 0.2], [0.6, 0.8, -0.1], [0.2, -0.1, 0.5]]])
    matrix = torch.tensor([[1.0, -0.5, 0.3], [0.2, 1.0, 0.0]], dtype=torch.float64)
    observation = Observation(matrix, torch.tensor([1.0, -0.3], dtype=torch.float64), 0.3)
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    belief = believe(data.denoiser(process), observation, x, t)
    for i in range(4):
        mean, covariance = conditional(posterior(data, observation), process, x[i], t)
        torch.testing.assert_close(belief.given_mean[i], mean, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(belief.given_covariance[i], covariance, rtol=1e-10, atol=1e-10)
        prior = GaussianMixture([1.0], belief.mean[i : i + 1], belief.covariance[i : i + 1])
        assert belief.log_prob[i].item() == pytest.approx(log_evidence(prior, observation).item(), abs=1e-10)


class Linear:
    """D = B x, flattened: its Jacobian is B."""

    process = EDM()

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, x, t, label=None):
        return (x.flatten(1) @ self.matrix.T.to(x)).reshape(x.shape)


def test_a_jacobian_that_is_no_covariance_is_replaced_by_the_nearest():
    matrix = torch.tensor([[0.5, 0.4, 0.0, 0.0], [0.0, 0.3, 0.0, 0.1], [0.0, 0.0, -0.2, 0.0], [0.1, 0.0, 0.2, 0.1]])
    x, t = torch.ones(2, 2, 2), 0.02
    mean, covariance = moments(Linear(matrix), x, t)
    scaled = EDM().sigma(t).item() ** 2 * (matrix + matrix.T) / 2
    values, axes = torch.linalg.eigh(scaled)
    assert values[0] < 0 and mean.shape == x.shape
    wanted = (axes * values.clamp(min=0)) @ axes.T
    torch.testing.assert_close(covariance, wanted.expand(2, 4, 4), rtol=1e-5, atol=1e-6)
    symmetric = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]])
    assert torch.equal(nearest_covariance(symmetric, torch.tensor(0.5)), symmetric)


def test_what_is_a_covariance_up_to_rounding_stays_as_it_is():
    """Eigenvalues that coincide at zero have no gradient of their own, and need none."""
    v = torch.tensor([[1.0, 2.0, -1.0, 0.3]], dtype=torch.float64)
    single = (1e6 * v.mT @ v)[None].requires_grad_()
    assert torch.equal(nearest_covariance(single, torch.tensor(0.5)), single)
    slope = torch.autograd.grad(nearest_covariance(single, torch.tensor(0.5)).sum(), single)[0]
    assert torch.equal(slope, torch.ones_like(single))


def test_moments_are_differentiable_and_carry_a_graph_only_if_asked(mixture):
    denoiser = mixture.denoiser(VP())
    x = torch.tensor([[0.4, -0.2]], dtype=torch.float64)
    assert not any(v.requires_grad for v in moments(denoiser, x, 0.3))
    y = x.clone().requires_grad_()
    slope = torch.autograd.grad(moments(denoiser, y, 0.3)[1][0, 0, 1], y)[0]
    step = torch.tensor([[1e-5, 0.0]], dtype=torch.float64)
    change = moments(denoiser, x + step, 0.3)[1] - moments(denoiser, x - step, 0.3)[1]
    assert slope[0, 0].item() == pytest.approx(change[0, 0, 1].item() / 2e-5, rel=1e-6)


def test_types_follow_x_and_the_wider_one_with_an_observation():
    x = torch.ones(2, 2, 2)
    assert all(v.dtype == torch.float32 for v in moments(Linear(torch.eye(4) / 2), x, 0.1))
    observation = Observation(torch.ones(1, 4, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 0.1)
    assert all(v.dtype == torch.float64 for v in believe(Linear(torch.eye(4) / 2), observation, x, 0.1))


def test_bad_input(mixture):
    x = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="t must have a positive alpha.t., got t = 1 for RectifiedFlow"):
        moments(mixture.denoiser(RectifiedFlow()), x, 1.0)
    with pytest.raises(FloatingPointError, match="the Jacobian of the denoiser is not finite at t = 0.2"):
        moments(Linear(torch.eye(2) * math.inf), x + 1, 0.2)
    with pytest.raises(ValueError, match="label must be None: a mixture has no labels"):
        moments(mixture.denoiser(VP()), x, 0.2, torch.zeros(3, dtype=torch.int64))
