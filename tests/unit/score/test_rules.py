import math
from functools import partial
from itertools import pairwise

import pytest
import torch
import torchdiffeq

from hjbridge.score import sample, time_grid
from hjbridge.score.rules import RULES, ancestral, levels, sde_dpmpp2m
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.processes import DDPM, EDM, VE, VP, Cosine, RectifiedFlow, SubVP

LEVELS = torch.cat([torch.logspace(1.6, -2, 10, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
PROCESSES = [VP(), SubVP(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()]


def run(mixture, process, rule, ratios=LEVELS, n=64, **options):
    """Samples from one start y at one grid of levels, whatever the process."""
    grid = process.time_of(ratios)
    y = ratios[0] * torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    x = sample(mixture.denoiser(process), process.alpha(grid[0]) * y, grid, rule, **options)
    return x / process.alpha(grid[-1])


@pytest.mark.parametrize("rule", ["ddim", "heun", "dpmpp2m", "ancestral", "sde_dpmpp2m"])
@pytest.mark.parametrize("process", PROCESSES[1:], ids=lambda p: type(p).__name__)
def test_a_rule_depends_on_the_levels_and_not_on_the_process(mixture, process, rule):
    draws = [run(mixture, p, rule, generator=torch.Generator().manual_seed(1)) for p in (PROCESSES[0], process)]
    assert (draws[0] - draws[1]).abs().max() < 1e-12


def test_ddim_is_euler_on_the_flows_of_rectified_flow_and_edm_but_not_of_vp(mixture):
    ddim = run(mixture, VP(), "ddim")
    for process in (RectifiedFlow(), EDM()):
        assert (run(mixture, process, "euler") - ddim).abs().max() < 1e-12
    assert (run(mixture, VP(), "euler") - ddim).abs().max() > 0.05


@pytest.mark.parametrize("process", [VP(), VE(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_euler_follows_the_velocity_of_the_denoiser(mixture, process):
    denoiser, grid = mixture.denoiser(process), time_grid(process, 5, "uniform", ratio_max=30.0)
    x = process.prior_sample((8, 2), torch.Generator().manual_seed(0), t=float(grid[0]), dtype=torch.float64)
    path = sample(denoiser, x, grid, "euler", record=True)
    for i in range(5):
        x = x + (grid[i + 1] - grid[i]) * denoiser.velocity(x, grid[i])
        torch.testing.assert_close(path.states[i + 1], x, rtol=1e-11, atol=1e-11)


def test_ddim_and_ancestral_steps_are_the_formulas_of_the_ddpm_papers(mixture):
    """The papers write alpha_bar for alpha^2; the chain's own beta, mean and variance (Ho et al. 2020, eq. 6 and 7)."""
    chain = DDPM([0.1, 0.2, 0.3, 0.4])
    denoiser, grid = mixture.denoiser(chain), time_grid(chain, 4, "ddpm")
    x = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - chain.betas).cumprod(0)])
    states = sample(denoiser, x, grid, "ancestral", generator=torch.Generator().manual_seed(1), record=True).states
    generator = torch.Generator().manual_seed(1)
    for i, k in enumerate((4, 3, 2, 1)):
        d, beta = denoiser(states[i], k / 4), chain.betas[k - 1]
        keep, pull = (1 - beta).sqrt() * (1 - bar[k - 1]), bar[k - 1].sqrt() * beta
        mean = (keep * states[i] + pull * d) / (1 - bar[k])
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) if k > 1 else 0.0
        expected = mean + ((1 - bar[k - 1]) / (1 - bar[k]) * beta).sqrt() * noise
        torch.testing.assert_close(states[i + 1], expected, rtol=1e-12, atol=1e-12)
    states = sample(denoiser, x, grid, "ddim", record=True).states
    for i, k in enumerate((4, 3, 2, 1)):
        d, eps = denoiser(states[i], k / 4), denoiser.eps(states[i], k / 4)
        expected = bar[k - 1].sqrt() * d + (1 - bar[k - 1]).sqrt() * eps
        torch.testing.assert_close(states[i + 1], expected, rtol=1e-12, atol=1e-12)


def test_dpmpp2m_steps_are_the_formulas_of_the_paper(mixture):
    """Lu et al. 2022, DPM-Solver++, algorithm 2 and eq. 18, in y = x/alpha and lambda = -log(sigma/alpha)."""
    process, levels = SubVP(), torch.tensor([9.0, 3.0, 0.8, 0.5, 0.0], dtype=torch.float64)
    denoiser, grid = mixture.denoiser(process), process.time_of(levels)
    start = (
        9 * process.alpha(grid[0]) * torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )
    for rule, noisy in (("dpmpp2m", 0), ("sde_dpmpp2m", 1)):
        states = sample(denoiser, start, grid, rule, generator=torch.Generator().manual_seed(1), record=True).states
        generator, old, h_old = torch.Generator().manual_seed(1), None, None
        for i in range(4):
            d, y = denoiser(states[i], grid[i]), states[i] / process.alpha(grid[i])
            kept = (levels[i + 1] / levels[i]) ** (1 + noisy)
            h = (levels[i] / levels[i + 1]).log()
            # the slope of D in lambda over the last step, carried to the middle of this one
            best = d + h / 2 * (d - old) / h_old if i in (1, 2) else d
            y = kept * y + (1 - kept) * best
            if i < 3:
                noise = torch.randn(y.shape, generator=generator, dtype=y.dtype)
                y = y + noisy * levels[i + 1] * (1 - kept).sqrt() * noise
            torch.testing.assert_close(states[i + 1], process.alpha(grid[i + 1]) * y, rtol=1e-12, atol=1e-12)
            old, h_old = d, h


@pytest.mark.parametrize("rule", ["ancestral", "sde_dpmpp2m"])
def test_stochastic_rules_reproduce_a_point_exactly(rule):
    """With data at a point every step is exact: x_t ~ N(alpha m, sigma^2) all the way, in mean and variance."""
    process, point = VP(), torch.tensor([[2.0]], dtype=torch.float64)
    data = GaussianMixture([1.0], point, torch.full((1, 1, 1), 1e-12, dtype=torch.float64))
    grid, n = time_grid(process, 4), 100_000
    generator = torch.Generator().manual_seed(0)
    start = process.prior_sample((n, 1), generator, float(grid[0]), mean=point[0], dtype=torch.float64)
    path = sample(data.denoiser(process), start, grid, rule, generator=generator, record=True)
    for t, x in zip(grid[:-1], path.states, strict=False):
        alpha, sigma = process.alpha(t).item(), process.sigma(t).item()
        assert x.mean().item() == pytest.approx(2 * alpha, abs=4 * sigma / math.sqrt(n))
        assert x.std().item() == pytest.approx(sigma, rel=4 / math.sqrt(2 * n))
    torch.testing.assert_close(path.x, point.expand(n, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rule", "order"), [("ancestral", 1), ("sde_dpmpp2m", 2)])
def test_variance_of_stochastic_rules_on_a_gaussian_converges(rule, order):
    """The rules are linear in x for N(0, c): propagate the exact variance of their output and compare with c + s^2."""
    c, errors = 0.5, []
    data = GaussianMixture([1.0], [[0.0]], [[[c]]])
    for n in (20, 40, 80):
        grid = EDM().time_of(torch.logspace(1.5, -0.7, n + 1, dtype=torch.float64))
        # response of the last state to the start and to each noise: run the rule on unit vectors, one per source
        source = iter(torch.eye(n + 1, dtype=torch.float64)[1:])
        start = EDM().sigma(grid[0]).square().add(c).sqrt() * torch.eye(n + 1, dtype=torch.float64)[:1].T
        last = run_with_noise(data, rule, start, grid, source)
        errors.append(abs((last**2).sum().item() / (c + EDM().sigma(grid[-1]).item() ** 2) - 1))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes[-1] == pytest.approx(order, abs=0.25), (errors, slopes)


def test_extrapolation_leads_from_ancestral_to_the_second_order(mixture):
    """The rule is linear in its share for fixed answers: one step further than the first, d' = d + share (d'_1 - d)."""

    def end(rule):
        return run(mixture, VP(), rule, LEVELS[:3], generator=torch.Generator().manual_seed(1))

    none, half, whole = (end(partial(sde_dpmpp2m, extrapolation=share)) for share in (0.0, 0.5, 1.0))
    assert torch.equal(whole, end("sde_dpmpp2m")) and (whole - none).abs().max() > 1e-2
    torch.testing.assert_close(none, end(ancestral), rtol=0, atol=1e-12)
    torch.testing.assert_close(half, (none + whole) / 2, rtol=0, atol=1e-12)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"extrapolation must lie in \[0, 1\], got"):
            end(partial(sde_dpmpp2m, extrapolation=share))


def run_with_noise(data, rule, start, grid, source):
    from unittest import mock

    with mock.patch("hjbridge.score.rules.standard_normal", lambda x, generator: next(source)[:, None]):
        return sample(data.denoiser(EDM()), start, grid, rule)


def test_measured_orders_on_the_flow_of_a_mixture(mixture):
    process, ends = EDM(20.0), torch.tensor([0.9, 0.01], dtype=torch.float64)
    denoiser = mixture.denoiser(process)
    x = process.prior_sample((40, 2), torch.Generator().manual_seed(3), t=0.9, dtype=torch.float64)
    exact = torchdiffeq.odeint(lambda t, x: denoiser.velocity(x, t), x, ends, rtol=1e-9, atol=1e-9)[-1]
    for rule, order in {"ddim": 1, "euler": 1, "heun": 2, "dpmpp2m": 2}.items():
        errors = []
        for n in (64, 128):
            grid = process.time_of(torch.logspace(math.log10(18), math.log10(0.2), n + 1, dtype=torch.float64))
            errors.append((sample(denoiser, x, grid, rule) - exact).square().mean().sqrt().item())
        assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15), (rule, errors)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_last_step_ends_at_the_denoised_point(mixture, rule):
    for process in (RectifiedFlow(), EDM()):
        path_grid = process.time_of(LEVELS)
        x = process.prior_sample((5, 2), torch.Generator().manual_seed(0), float(path_grid[0]), dtype=torch.float64)
        path = sample(mixture.denoiser(process), x, path_grid, rule, record=True)
        expected = mixture.denoiser(process)(path.states[-2], path_grid[-2])
        torch.testing.assert_close(path.x, expected, rtol=1e-12, atol=1e-12)


ORDERS = {"ancestral": 1, "reverse_diffusion": 1, "ddim": 1, "euler": 1, "heun": 2, "dpmpp2m": 2, "sde_dpmpp2m": 2}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_process_with_noise_at_the_end_keeps_it(mixture, rule):
    """VE ends at sigma_min, and so do the samples: the mixture plus that noise, in mean and covariance.

    The bias of a rule of order p, up to .25 for `euler` with 60 steps, is removed by (2^p m_120 - m_60) / (2^p - 1).
    """
    process = VE(sigma_min=0.5)
    noised = mixture.marginal(process, 0.0)
    moments = []
    for n in (60, 120):
        generator = torch.Generator().manual_seed(0)
        x = process.prior_sample((10_000, 2), generator, dtype=torch.float64)
        # each start with its mirror image: the mean of the starts is exact
        y = sample(mixture.denoiser(process), torch.cat([x, -x]), time_grid(process, n), rule, generator=generator)
        moments.append((y.mean(0), y.T.cov()))
    factor = 2 ** ORDERS[rule]
    mean, covariance = ((factor * fine - coarse) / (factor - 1) for coarse, fine in zip(*moments, strict=True))
    torch.testing.assert_close(mean, noised.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(covariance, noised.covariance, rtol=0, atol=0.06)


def test_number_of_evaluations(mixture):
    count = 0

    class Counted:
        process = VP()

        def __call__(self, x, t, label=None):
            nonlocal count
            count += 1
            return mixture.denoiser(self.process)(x, t)

    x = torch.randn(3, 2, dtype=torch.float64)
    for rule in RULES:
        count = 0
        sample(Counted(), x, time_grid(VP(), 6), rule)
        assert count == (11 if rule == "heun" else 6)


def test_levels_hold_the_coefficients_of_the_process():
    grid = time_grid(VP(), 3)
    for point, t in zip(levels(VP(), grid), grid, strict=True):
        assert (point.t, point.alpha, point.sigma) == (t, VP().alpha(t).item(), VP().sigma(t).item())
        assert point.ratio == pytest.approx(point.sigma / point.alpha, rel=1e-14)


def test_the_example_of_the_docstring_runs(mixture):
    import doctest

    import hjbridge.score.rules as rules

    source = "".join(e.source for e in doctest.DocTestParser().get_examples(rules.__doc__))
    scope = {"torch": torch}
    exec(source, scope)
    grid = time_grid(VP(), 20)
    x = VP().prior_sample((4000, 2), torch.Generator().manual_seed(0), t=float(grid[0]), dtype=torch.float64)
    y = sample(mixture.denoiser(VP()), x, grid, scope["project"], generator=torch.Generator().manual_seed(1))
    assert y.shape == x.shape and y.isfinite().all()
