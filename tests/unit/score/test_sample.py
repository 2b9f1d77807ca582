import math

import pytest
import torch

from hjbridge.score import Denoiser, ResidualMLP, ddim, dpmpp2m, sample, time_grid
from hjbridge.score.rules import RULES
from hjbridge.sde import Path
from hjbridge.sde.processes import DDPM, EDM, VP, Cosine, RectifiedFlow

PROCESS = VP()
GRID = time_grid(PROCESS, 4)


class Labelled:
    """D(x, t, label) = x / 2 + label, and 7 without a label; counts its calls and their sizes."""

    process = PROCESS

    def __init__(self):
        self.sizes, self.times = [], []

    def __call__(self, x, t, label=None):
        self.sizes.append(len(x))
        self.times.append(float(t))
        return 0 * x + 7 if label is None else x / 2 + label.to(x).reshape(-1, *[1] * (x.ndim - 1))


def once(denoise, process, x, grid, generator=None):
    """A rule of one evaluation."""
    yield denoise(x, grid[0])


@pytest.fixture
def x(generator):
    return torch.randn(5, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("guidance", [0.0, 0.7, 3.0, -0.5, -1.0])
def test_guidance_is_one_plus_w_labelled_less_w_unlabelled(x, guidance):
    label, denoiser = torch.tensor([1, 2, 3, 4, 5]), Labelled()
    y = sample(denoiser, x, GRID, once, label=label, guidance=guidance)
    expected = (1 + guidance) * (x / 2 + label[:, None]) - guidance * 7
    torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)
    assert len(denoiser.sizes) == (1 if guidance == 0 else 2)
    assert torch.equal(sample(denoiser, x, GRID, once), torch.full_like(x, 7))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_batches_change_the_size_of_calls_and_nothing_else(x, rule):
    label, draws = torch.tensor([1, 2, 3, 4, 5]), []
    for batch in (None, 5, 100, 2, 1):
        for labels, guidance in ((label, 0.5), (None, 0.0)):
            denoiser, generator = Labelled(), torch.Generator().manual_seed(3)
            options = {"label": labels, "guidance": guidance, "generator": generator, "batch": batch}
            draws.append(sample(denoiser, x, GRID, rule, **options))
            assert max(denoiser.sizes) == min(batch or 5, 5)
            if batch == 2:
                assert denoiser.sizes[: 6 if guidance else 3] == ([2, 2, 2, 2, 1, 1] if guidance else [2, 2, 1])
    for one in draws[2:]:
        assert min((one - other).abs().max() for other in draws[:2]) < 1e-13


def test_record_keeps_every_state(x):
    path = sample(Labelled(), x, GRID, "ddim", record=True)
    assert isinstance(path, Path) and path.states.shape == (5, 5, 3) and path.noises is None
    assert torch.equal(path.states[0], x) and torch.equal(path.states[-1], path.x) and torch.equal(path.grid, GRID)
    assert torch.equal(path.x, sample(Labelled(), x, GRID, "ddim"))
    for i in range(1, 5):
        shorter = sample(Labelled(), x, GRID[: i + 1], "ddim")
        torch.testing.assert_close(path.states[i], shorter, rtol=1e-13, atol=1e-13)


def test_a_rule_is_a_name_or_a_function_and_dpmpp2m_unless_told(x):
    assert list(RULES) == ["ancestral", "reverse_diffusion", "ddim", "euler", "heun", "dpmpp2m", "sde_dpmpp2m"]
    assert torch.equal(sample(Labelled(), x, GRID, "ddim"), sample(Labelled(), x, GRID, ddim))
    label = torch.tensor([1, 2, 3, 4, 5])
    unnamed, named, other = (sample(Labelled(), x, GRID, *rule, label=label) for rule in ((), (dpmpp2m,), (ddim,)))
    assert torch.equal(unnamed, named) and not torch.equal(unnamed, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_type_and_shape_follow_the_start(dtype, rule):
    network = ResidualMLP((1, 2, 2), 16, 1, classes=3).to(dtype)
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    denoiser, label = Denoiser(network, PROCESS, classes=3), torch.tensor([0, 1, 2])
    y = sample(denoiser, x, GRID.to(dtype), rule, label=label, generator=torch.Generator().manual_seed(1))
    assert y.dtype == dtype and y.shape == x.shape and y.device == x.device
    # the times and their coefficients are float64 whatever the type of x
    wide = sample(
        denoiser.double(), x.double(), GRID.to(dtype), rule, label=label, generator=torch.Generator().manual_seed(1)
    )
    if rule not in ("ancestral", "sde_dpmpp2m"):
        torch.testing.assert_close(y.double(), wide, rtol=1e-5, atol=1e-5)


def test_the_grid_is_read_in_float64_on_the_cpu_whatever_it_was(x):
    denoiser = Labelled()
    y = sample(denoiser, x, GRID.tolist(), "ddim")
    assert torch.equal(y, sample(Labelled(), x, GRID, "ddim")) and denoiser.times == GRID[:-1].tolist()


def test_noise_comes_from_the_generator(x):
    draws = [sample(Labelled(), x, GRID, "ancestral", generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    # the last step adds no noise, and D forgets x: what differs is the state before it
    states = [
        sample(Labelled(), x, GRID, "ancestral", generator=torch.Generator().manual_seed(s), record=True).states[-2]
        for s in (1, 2)
    ]
    assert (states[0] - states[1]).abs().max() > 1e-3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        first = sample(Labelled(), x, GRID, "ancestral", record=True).states
        torch.manual_seed(4)
        assert torch.equal(sample(Labelled(), x, GRID, "ancestral", record=True).states, first)


def test_samples_carry_a_graph_only_if_the_start_requires_one():
    network = ResidualMLP((3,), 16, 1).double()
    torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(0))
    denoiser, x = Denoiser(network, PROCESS), torch.ones(2, 3, dtype=torch.float64)
    assert not sample(denoiser, x, GRID).requires_grad
    x.requires_grad_()
    y = sample(denoiser, x, GRID)
    slope = torch.autograd.grad(y.sum(), x)[0]
    step = 1e-6 * torch.eye(3, dtype=torch.float64)[:1]
    with torch.no_grad():
        difference = sample(denoiser, x + step, GRID).sum() - sample(denoiser, x - step, GRID).sum()
        assert not sample(denoiser, x, GRID).requires_grad
    assert slope[:, 0].sum().item() == pytest.approx(difference.item() / 2e-6, rel=1e-6)


def test_progress_is_shown_when_asked(x, capsys):
    sample(Labelled(), x, GRID)
    assert capsys.readouterr().err == ""
    sample(Labelled(), x, GRID, progress=True)
    assert "4/4" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["ancestral", "ddim", "dpmpp2m", "sde_dpmpp2m", "heun"])
def test_data_at_a_point_is_reached_in_one_step(rule):
    """D = m whatever x: from any start, on any process with a finite one, the end is m."""
    for process in (VP(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()):
        constant = type("Constant", (), {"process": process, "__call__": lambda self, x, t, label=None: 0 * x + 3.0})()
        x = process.prior_sample((4, 2), torch.Generator().manual_seed(0), float(time_grid(process, 1)[0]))
        y = sample(constant, x, time_grid(process, 1), rule)
        torch.testing.assert_close(y, torch.full_like(y, 3.0), rtol=1e-5, atol=1e-5)


LABEL = torch.tensor([0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rule": "ddpm"},
            "rule must be one of ancestral, reverse_diffusion, ddim, euler, heun, dpmpp2m, sde_dpmpp2m, "
            "predictor_corrector or a function, got 'ddpm'",
        ),
        (
            {"rule": None},
            "rule must be one of ancestral, reverse_diffusion, ddim, euler, heun, dpmpp2m, sde_dpmpp2m, "
            "predictor_corrector or a function, got None",
        ),
        (
            {"grid": [0.1, 0.5, 1.0]},
            "grid must be strictly descending (t = 1 is noise), got 0.1 then 0.5 at position 0",
        ),
        (
            {"grid": [1.0, 0.5, 0.5, 0.0]},
            "grid must be strictly descending (t = 1 is noise), got 0.5 then 0.5 at position 1",
        ),
        ({"grid": [1.0]}, "grid must be a vector of at least two times, got shape (1,)"),
        ({"grid": [[1.0, 0.0]]}, "grid must be a vector of at least two times, got shape (1, 2)"),
        ({"grid": [1.2, 0.0]}, "grid must lie in [0, 1], got 1.2"),
        ({"grid": [math.nan, 0.0]}, "grid must lie in [0, 1], got nan"),
        (
            {"process": RectifiedFlow(), "grid": [1.0, 0.0]},
            "grid must start where sigma/alpha is finite, got t = 1 for RectifiedFlow",
        ),
        ({"x1": torch.zeros(5)}, "x1 must be floating, of shape (n, ...), got torch.float32 (5,)"),
        (
            {"x1": torch.zeros(5, 3, dtype=torch.int64)},
            "x1 must be floating, of shape (n, ...), got torch.int64 (5, 3)",
        ),
        ({"x1": torch.full((5, 3), math.nan)}, "x1 must be finite, got NaN or infinity"),
        ({"x1": torch.full((5, 3), math.inf)}, "x1 must be finite, got NaN or infinity"),
        ({"label": LABEL[:3]}, "label must be integers of shape (5,), got torch.int64 (3,)"),
        ({"label": LABEL.float()}, "label must be integers of shape (5,), got torch.float32 (5,)"),
        ({"guidance": 1.0}, "guidance must be 0 without a label, got 1.0"),
        ({"guidance": math.nan, "label": LABEL}, "guidance must be finite, got nan"),
        ({"batch": 0}, "batch must be at least 1 or None, got 0"),
        ({"narrow": True}, "denoiser must return the shape of x, (5, 3), got (5, 1)"),
    ],
)
def test_errors_name_what_is_wrong(x, change, message):
    class Bad(Labelled):
        process = change.pop("process", PROCESS)
        width = 1 if change.pop("narrow", False) else 3

        def __call__(self, x, t, label=None):
            return super().__call__(x, t, label)[:, : self.width]

    options = {"x1": x, "grid": GRID, "rule": "ddim"} | change
    with pytest.raises(ValueError) as caught:
        sample(Bad(), options.pop("x1"), options.pop("grid"), options.pop("rule"), **options)
    assert message in str(caught.value)


def test_a_result_that_is_not_finite_is_refused(x):
    class Wild(Labelled):
        def __call__(self, x, t, label=None):
            return 1e200 * x**3

    with pytest.raises(FloatingPointError, match="the samples of rule 'heun' are not finite after 4 steps: take more"):
        sample(Wild(), x, GRID, "heun")


@pytest.mark.parametrize("rule", ["ddim", "dpmpp2m"])
@pytest.mark.parametrize("process", [Cosine(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_a_walk_may_start_without_signal_if_denoiser_and_rule_know_how(process, rule):
    """Data N(m, v I): the exact denoiser at t = 1 says m, and the flow maps the noise to m + sqrt(v) times itself."""
    mean, variance = 1.5, 0.3

    class Told:
        level = "angle"

        def __init__(self):
            self.process = process

        def __call__(self, x, t, label=None):
            alpha, sigma2 = process.alpha(t), process.sigma2(t)
            return mean + alpha * variance / (alpha**2 * variance + sigma2) * (x - alpha * mean)

    noise = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grid = torch.cat([torch.ones(1, dtype=torch.float64), time_grid(process, 400, "karras", ratio_max=500.0)])
    torch.testing.assert_close(sample(Told(), noise, grid, rule), mean + variance**0.5 * noise, rtol=0, atol=0.03)
    blind = Told()
    blind.level = "log_ratio"
    for denoiser, walk in ((blind, rule), (Told(), "ancestral"), (Told(), "heun")):
        with pytest.raises(ValueError, match="grid must start where sigma/alpha is finite, got t = 1"):
            sample(denoiser, noise, grid, walk)
