"""Conditional generation without training: the network stays as it is, what is asked of its samples is added.

`classifier`: the gradient of a noise-aware log likelihood. `observation`: y = A x_0 + noise, and the exact posterior of
a mixture. `inpainting`: known coordinates replaced after every step. `moments`: mean and covariance of x_0 given x_t,
by Tweedie. `moment_matching`: that Gaussian, conditioned on y. `particles`: weights that make it right in the limit.
"""

from hjbridge.score.guidance.classifier import ClassifierGuided
from hjbridge.score.guidance.inpainting import replacement
from hjbridge.score.guidance.moment_matching import MomentMatched
from hjbridge.score.guidance.moments import moments
from hjbridge.score.guidance.observation import Observation, log_evidence, posterior
from hjbridge.score.guidance.particles import Particles, particle_posterior

__all__ = [
    "ClassifierGuided",
    "Observation",
    "log_evidence",
    "posterior",
    "replacement",
    "MomentMatched",
    "moments",
    "Particles",
    "particle_posterior",
]
