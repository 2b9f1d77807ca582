import math

import pytest
import torch

from hjbridge.score import Denoiser, ResidualMLP
from hjbridge.score.likelihood_bound import likelihood_bound
from hjbridge.sde import EDM, VE, VP, Cosine, GaussianMixture, SubVP

PROCESSES = [VP(), SubVP(), VE(), EDM()]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)


@each_process
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_with_the_score_of_the_data_the_bound_is_an_equality(process, mixture, divergence, generator):
    start = process.time_of(max(0.02, process.ratio(0.0).item())).item()
    law = mixture.marginal(process, start)
    x = law.sample(4000, generator)
    last = mixture.marginal(process, 1.0).log_prob
    score = mixture.denoiser(process).score
    found = likelihood_bound(process, score, x, 24, start=start, prior=last, divergence=divergence, generator=generator)
    apart = found - law.log_prob(x)
    error = apart.std() / math.sqrt(len(x))
    assert found.dtype == torch.float64 and abs(apart.mean()) < 4 * error and error < 0.05
    # and for every x, not on average alone: no trace of where x is
    far = (law.log_prob(x) < law.log_prob(x).median()).double()
    gap = (apart * far).sum() / far.sum() - (apart * (1 - far)).sum() / (1 - far).sum()
    assert abs(gap) < 8 * error


@each_process
def test_with_a_wrong_linear_score_it_is_the_closed_form(process, generator):
    """Score -c x / v of data N(0, w): every expectation is a second moment, the integral over l by quadrature."""
    c, w, start = 0.7, 0.5, process.time_of(max(0.05, process.ratio(0.0).item())).item()
    x = torch.tensor([[0.4, -1.0]], dtype=torch.float64).expand(60_000, 2).contiguous()

    def variance(t):
        return process.alpha(t) ** 2 * w + process.sigma2(t)

    def score(x, t):
        return -c * x / variance(t).reshape(-1, *[1] * (x.ndim - 1)) if t.ndim else -c * x / variance(t)

    found = likelihood_bound(process, score, x, 16, start=start, divergence="exact", generator=generator)
    level = torch.linspace(process.ratio(start).log().item(), process.ratio(1.0).log().item(), 20_001).double()
    t = process.time_of(level.exp().clamp(process.ratio(start), process.ratio(1.0)))
    scale = process.alpha(t) / process.alpha(start)
    spread = process.sigma2(t) - scale**2 * process.sigma2(torch.tensor(start, dtype=torch.float64))
    square = scale**2 * 1.16 + 2 * spread
    # sigma^2 |s|^2 + 2 sigma^2 div s
    integrand = process.sigma2(t) * (c**2 * square / variance(t) ** 2 - 4 * c / variance(t))
    end = process.sigma2(torch.ones((), dtype=torch.float64))
    expected = -torch.trapezoid(integrand, level) + 2 * scale[-1].log()
    expected += -(2 * math.pi * end).log() - square[-1] / (2 * end)
    assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(len(x)) < 0.05


def test_a_wrong_score_lowers_it(mixture, generator):
    process, start = VP(), VP().time_of(0.05).item()
    law, last = mixture.marginal(process, start), mixture.marginal(process, 1.0).log_prob
    x = law.sample(4000, generator)
    exact = mixture.denoiser(process).score
    means = []
    for k in (0.0, 0.5, 1.0):
        bound = likelihood_bound(
            process, lambda x, t, k=k: exact(x, t) + k * torch.sin(3 * x), x, 24, start=start, prior=last,
            generator=generator,
        )  # fmt: skip
        means.append((bound - law.log_prob(x)).mean().item())
    # the loss is quadratic in the error of the score
    assert abs(means[0]) < 0.1 and means[1] < -0.5 and 3 * means[1] > means[2] > 5 * means[1]


def test_a_denoiser_its_labels_and_images_are_taken(generator):
    denoiser = Denoiser(ResidualMLP((1, 2, 2), 8, 1, classes=3), VP(), shape=(1, 2, 2), classes=3)
    x = torch.randn(5, 1, 2, 2, generator=generator)
    found = likelihood_bound(VP(), denoiser, x, 8, label=torch.tensor([0, 1, 2, 0, 3]), generator=generator)
    assert found.shape == (5,) and found.isfinite().all() and not found.requires_grad
    with pytest.raises(ValueError, match=r"x must have shape \(n, 1, 2, 2\), got \(5, 2, 2\)"):
        likelihood_bound(VP(), denoiser, x[:, 0], 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": 0}, "points must be at least 1, got 0"),
        ({"probes": 0}, "probes must be at least 1, got 0"),
        ({"start": 0.0}, "start must have a positive noise scale"),
        ({"divergence": "guess"}, "divergence must be one of exact, hutchinson, got 'guess'"),
        ({"process": Cosine()}, "process must have a finite sigma/alpha at t = 1, got Cosine"),
    ],
)
def test_errors_name_what_is_wrong(change, message):
    law = GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    process = change.get("process", VP())
    given = {"points": 4} | {k: v for k, v in change.items() if k != "process"}
    with pytest.raises(ValueError, match=message):
        likelihood_bound(process, law.denoiser(process).score, torch.zeros(3, 1, dtype=torch.float64), **given)


def test_a_score_that_is_not_finite_is_named_by_its_time(generator):
    with pytest.raises(FloatingPointError, match=r"score must be finite, got NaN or infinity at t = \S+"):
        likelihood_bound(VP(), lambda x, t: x * math.nan, torch.zeros(3, 1), 4, generator=generator)
    with pytest.raises(ValueError, match=r"score must return the shape of x, \(3, 1\), got \(3, 2\)"):
        likelihood_bound(VP(), lambda x, t: torch.cat([x, x], 1), torch.zeros(3, 1), 4, generator=generator)


def test_it_starts_where_sigma_over_alpha_is_a_thousandth_and_one_point_will_do(generator):
    law = GaussianMixture([1.0], [[0.2]], [[[0.5]]])
    x, score = torch.randn(5, 1, dtype=torch.float64, generator=generator), law.denoiser(VP()).score

    def measure(points, start):
        source = torch.Generator().manual_seed(1)
        return likelihood_bound(VP(), score, x, points, start=start, generator=source)

    assert torch.equal(measure(1, None), measure(1, VP().time_of(1e-3).item()))
    assert not torch.equal(measure(1, None), measure(1, VP().time_of(2e-3).item()))
