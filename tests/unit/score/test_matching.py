import math

import pytest
import torch

from hjbridge.score import ResidualMLP, score_matching
from hjbridge.score.matching import KINDS
from hjbridge.sde import VE, VP, GaussianMixture

TRUTH = 0.7


def family(theta):
    """The mixture whose two means stand at -theta and theta."""
    return GaussianMixture(
        torch.tensor([0.4, 0.6], dtype=torch.float64),
        torch.stack([-theta, theta]).reshape(2, 1).double(),
        torch.tensor([[[0.2]], [[0.1]]], dtype=torch.float64),
    )


def nodes(process, t, n=301):
    """Quadrature of E over (x_0, z): pairs (n^2, 1) and their weights, for data of the truth."""
    law = family(torch.tensor(TRUTH, dtype=torch.float64))
    x0, z = torch.linspace(-4, 4, n, dtype=torch.float64), torch.linspace(-6, 6, n, dtype=torch.float64)
    weight = law.log_prob(x0[:, None]).exp()[:, None] * (-(z**2) / 2).exp()[None]
    grid = torch.cartesian_prod(x0, z)
    return grid[:, :1], grid[:, 1:], (weight / weight.sum()).flatten()


def surface(kind, theta, process, t, x0, z, weight):
    """Expected loss by quadrature: the function sees each node alone, so that its mean can be weighed."""
    score = family(theta).denoiser(process).score
    x = process.perturb(x0, t, z).requires_grad_()
    if kind == "fisher":
        truth = family(torch.tensor(TRUTH, dtype=torch.float64)).marginal(process, t).score(x)
        return (weight * (score(x, t) - truth).square().sum(1) / 2).sum()
    return sum(
        weight[k] * score_matching(score, process, x0[k : k + 1], t, kind=kind, noise=z[k : k + 1])
        for k in range(len(x0))
    )


def test_the_three_differ_from_the_fisher_divergence_by_their_constants():
    """In closed form: E|grad log p|^2 / 2 for both, and d / (2 sigma^2) more for denoising; at three parameters."""
    process, t = VP(), 0.3
    x0, z, weight = nodes(process, t, 25)
    sigma2 = process.sigma2(torch.tensor(t, dtype=torch.float64)).item()
    fine = nodes(process, t, 801)
    x = process.perturb(fine[0], t, fine[1])
    truth = family(torch.tensor(TRUTH, dtype=torch.float64)).marginal(process, t).score(x)
    energy = (fine[2] * truth.square().sum(1) / 2).sum().item()
    for theta in (0.4, TRUTH, 1.0):
        theta = torch.tensor(theta, dtype=torch.float64)
        fisher = surface("fisher", theta, process, t, x0, z, weight).item()
        for kind, constant in (("implicit", 0.0), ("sliced", 0.0), ("denoising", 1 / (2 * sigma2))):
            found = surface(kind, theta, process, t, x0, z, weight).item()
            # in one dimension a random sign squares to one, so that sliced is implicit
            assert found == pytest.approx(fisher - energy + constant, abs=2e-6), kind


@pytest.mark.parametrize("kind", KINDS)
def test_they_share_their_minimiser(kind):
    """A thousand draws of data, common to all parameters: the bottom lies at the truth, within its error."""
    process, t = VP(), 0.3
    law = family(torch.tensor(TRUTH, dtype=torch.float64))
    bottoms = []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        x0, z = law.sample(4000, generator), torch.randn(4000, 1, generator=generator, dtype=torch.float64)
        theta = torch.linspace(0.5, 0.9, 9, dtype=torch.float64)
        losses = torch.stack(
            [score_matching(family(a).denoiser(process).score, process, x0, t, kind=kind, noise=z) for a in theta]
        )
        # the bottom of the parabola through the losses
        powers = torch.stack([theta**2, theta, torch.ones_like(theta)], 1)
        a, b, _ = torch.linalg.lstsq(powers, losses.detach()[:, None]).solution.flatten()
        assert a > 0
        bottoms.append((-b / (2 * a)).item())
    bottoms = torch.tensor(bottoms)
    assert abs(bottoms.mean() - TRUTH) < 4 * bottoms.std() / math.sqrt(8) + 0.01 and bottoms.std() < 0.08


def test_slices_are_unbiased_in_value_and_gradient(mixture):
    process, t = VP(), 0.2
    network = ResidualMLP((2,), 8, 1).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))

    def score(x, t):
        return network(x, torch.full((len(x),), 0.1, dtype=torch.float64))

    x0, z = mixture.sample(50, generator), torch.randn(50, 2, generator=generator, dtype=torch.float64)
    weights = [network.head.weight, network.stem.weight]

    def measure(kind, **options):
        loss = score_matching(score, process, x0, t, kind=kind, noise=z, **options)
        return torch.cat([loss.reshape(1), *(g.flatten() for g in torch.autograd.grad(loss, weights))])

    exact = measure("implicit")
    draws = torch.stack([measure("sliced", projections=4, generator=generator) for _ in range(200)])
    error = draws.std(0) / math.sqrt(200)
    assert ((draws.mean(0) - exact).abs() < 4.5 * error + 1e-12).all() and (error > 0).any()


def test_the_variance_of_denoising_grows_as_the_noise_vanishes(mixture):
    """At the truth the sliced loss stays calm, the denoising one has the variance of |z|^2 / (2 sigma^2)."""
    process, generator = VE(), torch.Generator().manual_seed(0)
    spread = {}
    for ratio in (0.5, 0.05):
        t = process.time_of(ratio)
        score = mixture.denoiser(process).score
        for kind in ("denoising", "sliced"):
            losses = [
                score_matching(score, process, mixture.sample(200, generator), t, kind=kind, generator=generator)
                for _ in range(30)
            ]
            spread[kind, ratio] = torch.stack(losses).std().item()
    assert spread["denoising", 0.05] > 20 * spread["denoising", 0.5]
    assert spread["sliced", 0.05] < 5 * spread["sliced", 0.5]


def test_images_and_times_of_their_own_are_taken():
    network = ResidualMLP((1, 3, 3), 8, 1)
    x0 = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    for kind in KINDS:
        loss = score_matching(
            lambda x, t: network(x, t.float()) - x, VP(), x0, t, kind=kind, generator=torch.Generator().manual_seed(1)
        )
        assert loss.ndim == 0 and loss.isfinite()
        (gradient,) = torch.autograd.grad(loss, [network.head.weight])
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "exact"}, "kind must be one of denoising, sliced, implicit, got 'exact'"),
        ({"kind": "sliced", "projections": 0}, "projections must be at least 1, got 0"),
        ({"t": 0.0}, "t must have a positive noise scale"),
        ({"noise": torch.zeros(3, 2)}, "noise must have the shape of x0"),
        ({"score": lambda x, t: x[:, :1]}, r"score must return the shape of x, \(4, 2\), got \(4, 1\)"),
        ({"kind": "sliced", "score": lambda x, t: x.detach()}, "score must be differentiable in x"),
    ],
)
def test_errors_name_what_is_wrong(change, message):
    given = {"score": lambda x, t: -x, "process": VP(), "x0": torch.zeros(4, 2), "t": 0.5} | change
    with pytest.raises(ValueError, match=message):
        score_matching(given.pop("score"), given.pop("process"), given.pop("x0"), given.pop("t"), **given)
