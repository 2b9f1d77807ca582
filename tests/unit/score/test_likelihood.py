"""Log densities along the probability flow, against mixtures, Gaussians, quadrature and torchdiffeq."""

import math

import pytest
import torch
import torchdiffeq

from hjbridge.score import EmpiricalDenoiser, NoisePredictor, time_grid
from hjbridge.score.divergence import divergence
from hjbridge.score.encode import flow_grid
from hjbridge.score.likelihood import halved, log_likelihood, log_normal
from hjbridge.sde import DDPM, EDM, VE, VP, Cosine, GaussianMixture, RectifiedFlow, SubVP, reverse

PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
GAUSSIAN = GaussianMixture([1.0], [[0.5, -1.0]], [[[0.6, 0.3], [0.3, 0.4]]])


def ten_dimensions():
    generator = torch.Generator().manual_seed(5)
    root = torch.randn(3, 10, 10, generator=generator, dtype=torch.float64)
    means = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    return GaussianMixture([0.2, 0.5, 0.3], means, 0.03 * root @ root.mT + 0.05 * torch.eye(10))


def ends(mixture, process, grid, n, seed=0):
    """Samples at the last time of a grid, their log density, and the prior that belongs to its first time."""
    last = mixture.marginal(process, grid[-1])
    x = last.sample(n, torch.Generator().manual_seed(seed))
    return x, last.log_prob(x), mixture.marginal(process, grid[0]).log_prob


@each_process
@pytest.mark.parametrize("dimensions", [2, 10])
def test_mixtures_are_met_to_a_thousandth_of_a_nat(process, dimensions, mixture):
    mixture = mixture if dimensions == 2 else ten_dimensions()
    n, chain = (80, 100)[dimensions == 10], isinstance(process, DDPM)
    grid = time_grid(process, n) if isinstance(process, VE) else time_grid(process, n + 1)[:-1]
    x, exact, prior = ends(mixture, process, grid, 200)
    found = log_likelihood(process, mixture.denoiser(process), x, grid, prior)
    assert (found - exact).abs().max() < (2e-2 if chain else 1e-3)
    assert (found - exact).abs().mean() < (4e-3 if chain else 4e-5)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("taylor15", 2), ("rk4", 4)])
@pytest.mark.parametrize("process", [VP(), EDM(5.0)], ids=lambda p: type(p).__name__)
def test_the_method_has_its_order(process, method, order):
    times, errors = process.time_of(torch.tensor([3.0, 0.5], dtype=torch.float64)), []
    for n in (32, 64, 128) if method == "rk4" else (16, 32, 64):
        grid = torch.linspace(times[0].item(), times[1].item(), n + 1, dtype=torch.float64)
        x, exact, prior = ends(GAUSSIAN, process, grid, 50)
        found = log_likelihood(process, GAUSSIAN.denoiser(process), x, grid, prior, method=method)
        errors.append((found - exact).square().mean().sqrt().item())
    # the divergence of a Gaussian's flow does not depend on the path, whose error comes in by the prior
    assert math.log2(errors[0] / errors[2]) / 2 == pytest.approx(order, abs=0.1), errors


class Resting(VP):
    def sigma2(self, t):
        return super().sigma2(t.clamp(max=0.5)) * (2 * self.log_alpha(t) - 2 * self.log_alpha(t.clamp(max=0.5))).exp()


@pytest.mark.parametrize("process", [VP(), VE(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_agrees_with_an_adaptive_solver_of_others(process, mixture):
    # a score that is not exact has a density, too, which no closed form knows
    def score(x, t):
        return 0.8 * mixture.denoiser(process).score(x, t) + 0.1 * torch.sin(x) / (1 + process.ratio(t) ** 2)

    grid = flow_grid(process, 120)
    x, _, prior = ends(mixture, process, grid, 20)
    flow = reverse(process, score, eta=0.0)

    def field(t, state):
        return divergence(lambda y: flow.drift(y, t), state[0])

    options = {"rtol": 1e-8, "atol": 1e-8, "options": {"step_t": grid[:1]}}
    path, integral = torchdiffeq.odeint(field, (x, x.new_zeros(20)), grid[[-1, 0]], **options)
    found = log_likelihood(process, score, x, grid, prior)
    torch.testing.assert_close(found, prior(path[-1]) + integral[-1], rtol=0, atol=3e-4)


@pytest.mark.parametrize(("process", "bias"), [(VP(), 0.001), (VE(sigma_max=9.0), 0.013)], ids=["VP", "VE(9)"])
def test_what_the_default_prior_misses(process, bias):
    grid = flow_grid(process, 80)
    x, _, prior = ends(GAUSSIAN, process, grid, 2000)
    denoiser = GAUSSIAN.denoiser(process)
    miss = log_likelihood(process, denoiser, x, grid) - log_likelihood(process, denoiser, x, grid, prior)
    # KL(N(alpha m, alpha^2 C + sigma^2) || N(0, sigma^2)) = (tr R - log det(1 + R) + alpha^2 |m|^2 / sigma^2) / 2
    ratio2 = process.ratio(grid[0]) ** -2
    spectrum = ratio2 * torch.linalg.eigvalsh(GAUSSIAN.covariances[0])
    divergence_of_priors = (spectrum.sum() - spectrum.log1p().sum() + ratio2 * GAUSSIAN.mean.square().sum()) / 2
    assert miss.mean().item() == pytest.approx(-divergence_of_priors.item(), abs=4 * miss.std().item() / 2000**0.5)
    assert miss.mean().item() == pytest.approx(0, abs=bias) and miss.abs().max() > 2 * bias
    # sample by sample: the flow takes a Gaussian to its own by an affine map, along the axes of its covariance
    start, end = (GAUSSIAN.marginal(process, grid[i]) for i in (-1, 0))
    (v0, q), (v1, _) = (torch.linalg.eigh(m.covariances[0]) for m in (start, end))
    latent = end.means + (x - start.means) @ q @ torch.diag((v1 / v0).sqrt()) @ q.mT
    expected = log_normal(latent, process.sigma(grid[0]).item()) - end.log_prob(latent)
    torch.testing.assert_close(miss, expected, rtol=0, atol=1e-6)


def test_log_normal_is_that_of_torch():
    x = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    exact = torch.distributions.Normal(0.0, 3.0).log_prob(x.double()).flatten(1).sum(1)
    torch.testing.assert_close(log_normal(x, 3.0), exact)


def test_halving_bounds_the_error(mixture):
    process = VP()
    grid = flow_grid(process, 30)
    x, exact, prior = ends(mixture, process, grid, 200)
    denoiser = mixture.denoiser(process)
    fine, error = log_likelihood(process, denoiser, x, grid, prior, return_error=True)
    coarse = log_likelihood(process, denoiser, x, grid, prior)
    torch.testing.assert_close(fine, log_likelihood(process, denoiser, x, halved(grid), prior), rtol=0, atol=0)
    torch.testing.assert_close(error, (fine - coarse).abs(), rtol=0, atol=0)
    assert ((fine - exact).abs() <= error).double().mean() > 0.95
    assert (fine - exact).abs().mean() < error.mean() / 2
    torch.testing.assert_close(halved(torch.tensor([4.0, 2.0, 1.0])), torch.tensor([4.0, 3.0, 2.0, 1.5, 1.0]))
    # equal probes in both: what is left is the step, not the noise of the estimate
    options = {"divergence": "hutchinson", "return_error": True, "generator": torch.Generator().manual_seed(0)}
    found, apart = log_likelihood(process, denoiser, x, grid, prior, **options)
    assert apart.mean() < 0.05 * (found - fine).abs().mean()


def test_hutchinson_is_unbiased_along_the_path(mixture):
    process = EDM(20.0)
    grid = flow_grid(process, 20)
    x, _, prior = ends(mixture, process, grid, 3)
    denoiser = mixture.denoiser(process)
    exact = log_likelihood(process, denoiser, x, grid, prior)
    many, generator = x.repeat(3000, 1), torch.Generator().manual_seed(0)
    options = {"divergence": "hutchinson", "generator": generator}
    found = log_likelihood(process, denoiser, many, grid, prior, **options).view(3000, 3)
    z = (found.mean(0) - exact) / (found.std(0) / 3000**0.5)
    assert z.abs().max() < 4 and found.std(0).min() > 1e-3
    averaged = log_likelihood(process, denoiser, many, grid, prior, probes=4, **options).view(3000, 3)
    torch.testing.assert_close(averaged.std(0), found.std(0) / 2, rtol=0.1, atol=0)
    # one probe a sample for the whole path has two values in two dimensions, e_1 e_2 = 1 or -1
    assert len(found[:, 0].round(decimals=9).unique()) == 2


def test_batches_and_labels_change_nothing_else(mixture):
    process, seen = VP(), []

    class Labelled:
        def __init__(self):
            self.process = process

        def score(self, x, t, label=None):
            seen.append(len(x))
            return -(x + 0.5 * x.flip(1)) / (1 + label.to(x)[:, None])

    grid, x, label = flow_grid(process, 12), torch.linspace(-1, 1, 10).double().view(5, 2), torch.arange(5)
    options = {"divergence": "hutchinson", "probes": 3, "label": label}
    whole, parts = (
        log_likelihood(process, Labelled(), x, grid, batch=batch, generator=torch.Generator().manual_seed(3), **options)
        for batch in (None, 2)
    )
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-12)
    assert set(seen) == {5, 2, 1}
    alone = log_likelihood(process, Labelled(), x[3:4], grid, label=label[3:4])
    exact = log_likelihood(process, Labelled(), x, grid, label=label)
    torch.testing.assert_close(alone, exact[3:4])
    assert (whole - exact).abs().min() > 1e-3  # each sample has probes of its own, whatever the batch


def test_type_and_graph(mixture):
    process = VP()
    x = mixture.sample(4, torch.Generator().manual_seed(0)).requires_grad_()
    wide = log_likelihood(process, mixture.denoiser(process), x)
    narrow = log_likelihood(process, mixture.denoiser(process).score, x.float())
    assert wide.dtype == torch.float64 and narrow.dtype == torch.float32 and not wide.requires_grad
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=2e-3)


def test_a_network_of_a_chain_is_walked_on_its_steps(plain):
    chain = DDPM.linear()
    predictor = NoisePredictor(plain(lambda x, k, label: x * chain.sigma((k[0] + 1) / 1000).to(x)), chain)
    x = torch.linspace(-2, 2, 8, dtype=torch.float64).view(4, 2)
    # eps = sigma x is exact for data N(0, 1), whose density the chain leaves alone
    torch.testing.assert_close(log_likelihood(chain, predictor, x), log_normal(x, 1.0), rtol=0, atol=1e-3)


class Other:
    """A denoiser whose score is what a test makes of it."""

    def __init__(self, score, process=PROCESSES[0], shape=None):
        self.function, self.process, self.shape = score, process, shape

    def score(self, x, t, label=None):
        return self.function(x, t)


def nan_below(x, t):
    return torch.where(t < 0.5, -x, x / 0 * 0)


def steep_below(x, t):
    return -x if t < 0.5 else torch.sqrt((x - x.detach()).abs()) - x


X = torch.ones(3, 2, dtype=torch.float64)
IMAGES = torch.zeros(2, 3, 2, 2)
EMPIRICAL = EmpiricalDenoiser(X, VP())
REFUSALS = [
    ({"x": X.long()}, "x must be floating, got torch.int64"),
    ({"x": X[0]}, r"x must have shape \(n, \.\.\.\) with n > 0, got \(2,\)"),
    ({"x": X[:0]}, r"with n > 0, got \(0, 2\)"),
    ({"x": X / 0}, "x must be finite, got NaN or infinity"),
    ({"x": X[:, :1], "score": GAUSSIAN.denoiser(VP())}, r"x must have shape \(n, 2\), got \(3, 1\)"),
    ({"x": IMAGES, "score": Other(lambda x, t: -x, shape=(1, 2, 2))}, r"shape \(n, 1, 2, 2\), got \(2, 3, 2, 2\)"),
    (
        {"x": IMAGES, "score": Other(lambda x, t: -x, shape=(1, 2, 2)).score},
        r"shape \(n, 1, 2, 2\), got \(2, 3, 2, 2\)",
    ),
    ({"score": lambda x, t: -x[:, :1]}, r"score must return the shape of x, \(3, 2\), got \(3, 1\)"),
    ({"score": Other(lambda x, t: -x, VE())}, r"process must be that of the denoiser, VE\(.*, got VP\("),
    ({"score": 3.0}, "score must be a denoiser or a function of"),
    ({"divergence": "trace"}, "divergence must be one of exact, hutchinson, got 'trace'"),
    ({"method": "rk5"}, "method must be one of euler, heun, rk4, taylor15, got 'rk5'"),
    ({"unit": "bits"}, "unit must be one of nats, bits_per_dim, got 'bits'"),
    ({"probes": 0}, "probes must be at least 1, got 0"),
    ({"probes": 0, "divergence": "hutchinson"}, "probes must be at least 1, got 0"),
    ({"batch": 0}, "batch must be at least 1 or None, got 0"),
    ({"levels": 17}, "levels must be None for unit nats, got 17"),
    ({"levels": 1, "unit": "bits_per_dim"}, "levels must be at least 2, got 1"),
    ({"levels": 0, "unit": "bits_per_dim"}, "levels must be at least 2, got 0"),
    ({"x": 1.5 * X, "unit": "bits_per_dim"}, r"pixels must lie in \[0, 1\], got 1\.5"),
    ({"x": 0.5 * X, "unit": "bits_per_dim"}, r"pixels must be multiples of 1/255, got 0\.5"),
    ({"label": torch.zeros(3).long()}, r"label must be None for a score that is a function, got \(3,\) labels"),
    ({"label": torch.zeros(2).long(), "score": Other(lambda x, t: -x)}, r"label must be integers of shape \(3,\)"),
    ({"prior": lambda x: x}, r"prior must return log densities of shape \(3,\), got \(3, 2\)"),
    ({"prior": lambda x: x[:, 0] / 0}, "prior must return finite log densities, got "),
    ({"process": Resting(), "grid": torch.tensor([0.9, 0.7])}, "sigma/alpha of Resting must grow from each time"),
    ({"grid": torch.tensor([0.1, 0.9])}, "grid must be strictly descending"),
    ({"grid": torch.tensor([0.9, 0.0]), "score": EMPIRICAL}, r"grid must leave out t = 0.*grid\[:-1\] \(t must have"),
    ({"grid": torch.tensor([0.9, 0.0]), "score": lambda x, t: -x / t}, r"grid must leave out t = 0.*grid\[:-1\]"),
]


@pytest.mark.parametrize(("change", "message"), REFUSALS)
def test_refusals(change, message):
    arguments = {"process": VP(), "score": lambda x, t: -x, "x": X, "grid": torch.tensor([0.9, 0.5, 0.1]), **change}
    with pytest.raises(ValueError if "score must be a" not in message else TypeError, match=message):
        log_likelihood(**arguments)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (nan_below, r"score must be finite, got NaN or infinity at t = 0\.5"),
        (steep_below, r"divergence of the score must be finite, got NaN or infinity at t = 0\.5"),
        (lambda x, t: 1e300 * x * (1 + x.abs()), r"got NaN or infinity at t = 0\.\d+"),
    ],
)
def test_what_is_not_finite_on_the_way_is_named_by_its_time(score, message):
    with pytest.raises(FloatingPointError, match=message):
        log_likelihood(VP(), score, X, torch.tensor([0.9, 0.5, 0.1]), method="euler")


def test_an_exact_score_may_be_asked_at_zero_noise(mixture):
    # the last step, from sigma/alpha = .1, holds .04 nats
    grid = time_grid(VP(), 80, ratio_min=0.1)
    assert grid[-1] == 0
    x, exact, prior = ends(mixture, VP(), grid, 50)
    found = log_likelihood(VP(), mixture.denoiser(VP()), x, grid, prior)
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="grid must leave out t = 0"):
        log_likelihood(EDM(), Other(lambda x, t: -x / (80 * t) ** 2, EDM()), X, torch.tensor([0.5, 0.0]))
