import math
import re

import pytest
import torch
from torch.distributions import MultivariateNormal

from hjbridge.score.guidance import Observation, log_evidence, posterior
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.processes import VP

MATRIX = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.7, 0.1]], dtype=torch.float64)
VALUE = torch.tensor([0.3, -1.0, 0.4], dtype=torch.float64)


@pytest.fixture(params=[1, 3])
def observation(request):
    return Observation(MATRIX[: request.param], VALUE[: request.param], 0.4)


def test_the_likelihood_is_that_of_a_gaussian(observation, generator):
    x = torch.randn(20, 2, dtype=torch.float64, generator=generator)
    m = len(observation.value)
    given = MultivariateNormal(x @ MATRIX[:m].T, 0.16 * torch.eye(m, dtype=torch.float64))
    torch.testing.assert_close(observation.log_prob(x), given.log_prob(VALUE[:m]))
    torch.testing.assert_close(observation.residual(x), VALUE[:m] - x @ MATRIX[:m].T)


def test_the_posterior_is_prior_times_likelihood_over_evidence(mixture, observation, generator):
    """Bayes' rule at every point: the three closed forms hold each other."""
    x = 2 * torch.randn(200, 2, dtype=torch.float64, generator=generator)
    bayes = mixture.log_prob(x) + observation.log_prob(x) - log_evidence(mixture, observation)
    torch.testing.assert_close(posterior(mixture, observation).log_prob(x), bayes, rtol=1e-10, atol=1e-10)


def test_the_posterior_of_many_narrow_observations_stays_a_mixture(mixture):
    sharp = posterior(mixture, Observation(MATRIX, MATRIX @ torch.tensor([0.2, -0.7], dtype=torch.float64), 1e-6))
    torch.testing.assert_close(sharp.mean, torch.tensor([0.2, -0.7], dtype=torch.float64), rtol=0, atol=1e-5)


def test_pixels_pick_the_known_coordinates(generator):
    x = torch.randn(1, 2, 3, dtype=torch.float64, generator=generator)
    mask = torch.tensor([[[True, False, True], [False, False, True]]])
    known = torch.where(mask, x, math.nan)
    observation = Observation.pixels(mask, known, 0.1)
    assert observation.matrix.shape == (3, 6) and torch.equal(observation.value, x[mask])
    assert observation.matrix.dtype == torch.float64
    batch = torch.randn(5, 1, 2, 3, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(observation.residual(batch), x[mask] - batch[:, mask])


def test_values_are_computed_in_the_wider_type_and_have_that_of_x():
    observation = Observation(MATRIX, VALUE, 0.4)
    x = torch.tensor([[0.1, 0.2]])
    assert observation.log_prob(x).dtype == torch.float32
    assert observation.residual(x).dtype == torch.float64
    torch.testing.assert_close(observation.log_prob(x), observation.log_prob(x.double()).float())


@pytest.mark.parametrize(
    ("matrix", "value", "noise", "message"),
    [
        (VALUE, VALUE, 0.1, "matrix must have shape (m, d), got (3,)"),
        (MATRIX[:0], VALUE[:0], 0.1, "matrix must have shape (m, d), got (0, 2)"),
        (MATRIX, VALUE[:2], 0.1, "value must have shape (3,) for a matrix of shape (3, 2), got (2,)"),
        (MATRIX, MATRIX[:, :1], 0.1, "value must have shape (3,) for a matrix of shape (3, 2), got (3, 1)"),
        (MATRIX.long(), VALUE, 0.1, "matrix must be floating, got torch.int64"),
        (MATRIX, VALUE.long(), 0.1, "value must be floating, got torch.int64"),
        (MATRIX * math.inf, VALUE, 0.1, "matrix must be finite, got NaN or infinity"),
        (MATRIX, VALUE * math.nan, 0.1, "value must be finite, got NaN or infinity"),
        (MATRIX, VALUE, 0.0, "noise must be positive and finite, got 0.0"),
        (MATRIX, VALUE, -1.0, "noise must be positive and finite, got -1.0"),
        (MATRIX, VALUE, math.inf, "noise must be positive and finite, got inf"),
        (MATRIX, VALUE, math.nan, "noise must be positive and finite, got nan"),
    ],
)
def test_an_observation_that_is_none_is_refused(matrix, value, noise, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Observation(matrix, value, noise)


def test_lists_are_refused():
    for matrix, value, name in (([[1.0, 0.0]], VALUE, "matrix"), (MATRIX, [0.3, -1.0, 0.4], "value")):
        with pytest.raises(TypeError, match=f"{name} must be a tensor, got list"):
            Observation(matrix, value, 0.1)


def test_a_matrix_of_another_width_is_refused_by_whoever_uses_it(mixture):
    wide = Observation(torch.ones(1, 3, dtype=torch.float64), VALUE[:1], 0.1)
    message = re.escape(
        "matrix must have one column for each coordinate of x0, got 3 columns for samples of shape (2,)"
    )
    for use in (wide.log_prob, wide.residual):
        with pytest.raises(ValueError, match=message):
            use(torch.zeros(4, 2, dtype=torch.float64))
    for rule in (posterior, log_evidence):
        with pytest.raises(ValueError, match=message):
            rule(mixture, wide)
    with pytest.raises(ValueError, match="mixture must be one mixture"):
        posterior(mixture.marginal(VP(), torch.tensor([0.1, 0.2])), Observation(MATRIX, VALUE, 0.1))
    with pytest.raises(ValueError, match="x0 must be floating"):
        Observation(MATRIX, VALUE, 0.1).log_prob(torch.zeros(4, 2, dtype=torch.int64))


def test_a_noise_beyond_the_last_digit_is_refused():
    data = GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="must be positive definite"):
        posterior(data, Observation(torch.tensor([[1.0, 0.5]], dtype=torch.float64), VALUE[:1], 1e-12))


def test_bad_masks():
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="mask must be boolean, got torch.float32"):
        Observation.pixels(mask.float(), x, 0.1)
    with pytest.raises(ValueError, match=r"mask must have the shape of one sample, \(2, 3\), got \(3, 2\)"):
        Observation.pixels(mask.T, x, 0.1)
    with pytest.raises(ValueError, match="mask must be True somewhere"):
        Observation.pixels(~mask, x, 0.1)
    with pytest.raises(ValueError, match="value must be finite"):
        Observation.pixels(mask, x / 0, 0.1)
    with pytest.raises(ValueError, match="x must be floating"):
        Observation.pixels(mask, x.long(), 0.1)
