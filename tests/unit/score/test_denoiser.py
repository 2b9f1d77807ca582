import math

import pytest
import torch

from hjbridge.score import Denoiser, NoisePredictor, ResidualMLP, sample, time_grid
from hjbridge.sde import integrate, reverse
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.processes import DDPM, EDM, VE, VP, Cosine, RectifiedFlow, SubVP

PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
TIMES = [0.4, torch.linspace(0.03, 0.97, 32, dtype=torch.float64)]


def points(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def column(value, n=32):
    """A coefficient of t as a column over the batch."""
    return value.expand(n)[:, None]


def random_mlp(shape=(2,), classes=0):
    """A residual MLP in float64 whose zero layers have been filled."""
    generator = torch.Generator().manual_seed(5)
    network = ResidualMLP(shape, 16, 2, classes=classes).double()
    for parameter in network.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


@each_process
@pytest.mark.parametrize("t", TIMES, ids=["one time", "a time each"])
def test_scalings_are_those_of_edm_in_the_frame_of_the_process(plain, process, t):
    """c_skip is the answer to F = 0, c_out the answer to F = 1 less that, c_in and c_noise what the network sees."""
    sigma_data, x = 0.7, points(32, 3)
    alpha, sigma = column(process.alpha(t)), column(process.sigma(t))
    s = sigma / alpha
    zero, one = (plain(lambda x, level, label, c=c: torch.full_like(x, c)) for c in (0.0, 1.0))
    skipped = Denoiser(zero, process, sigma_data)(x, t)
    torch.testing.assert_close(skipped, sigma_data**2 / (s**2 + sigma_data**2) * x / alpha, rtol=1e-12, atol=1e-12)
    out = Denoiser(one, process, sigma_data)(x, t) - skipped
    expected = s * sigma_data / (s**2 + sigma_data**2).sqrt()
    torch.testing.assert_close(out, expected.expand(32, 3), rtol=1e-10, atol=1e-12)
    (seen, level, label), *_ = one.calls
    torch.testing.assert_close(seen, x / alpha / (s**2 + sigma_data**2).sqrt(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(level, (s.log() / 4)[:, 0], rtol=1e-12, atol=1e-12)
    assert label is None and level.shape == (32,)


@pytest.mark.parametrize("process", [VP(), Cosine()], ids=lambda p: type(p).__name__)
def test_with_unit_data_the_network_predicts_the_velocity(plain, process):
    """D = alpha x - sigma v for v = alpha eps - sigma x_0, where alpha^2 + sigma^2 = 1; exact for any pair."""
    x0, noise = points(32, 3, seed=1), points(32, 3, seed=2)
    for t in (0.1, 0.6, 0.97):
        alpha, sigma = process.alpha(t), process.sigma(t)
        velocity = alpha * noise - sigma * x0
        denoiser = Denoiser(plain(lambda x, level, label, v=velocity: -v), process, level="angle")
        x = process.perturb(x0, t, noise)
        torch.testing.assert_close(denoiser(x, t), x0, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(denoiser.eps(x, t), noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", [Cosine(), RectifiedFlow(), EDM()], ids=lambda p: type(p).__name__)
def test_an_angle_is_finite_without_noise_and_without_signal(plain, process):
    network = plain(lambda x, level, label: torch.full_like(x, 0.5))
    denoiser, x = Denoiser(network, process, 0.7, level="angle"), points(32, 3)
    for t in (0.0, 0.3, 1.0):
        network.calls.clear()
        found, expected = denoiser(x, t), torch.atan(process.ratio(t)) * 2 / math.pi
        ((_, level, _),) = network.calls
        torch.testing.assert_close(level, expected.expand(32), rtol=1e-12, atol=1e-15)
        assert found.isfinite().all()
        if t == 0:
            torch.testing.assert_close(found, x / process.alpha(0.0))
    if type(process) is not EDM:
        # no signal: what the network says is all there is
        torch.testing.assert_close(found, torch.full_like(x, 0.7 * 0.5))
        with pytest.raises(ValueError, match="finite, positive sigma/alpha"):
            Denoiser(network, process)(x, 1.0)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_input_and_target_of_the_network_have_unit_variance(plain, sigma_data):
    """Karras et al. 2022, eq. 114 and 131: Var[c_in x] = 1 and Var[(x_0 - c_skip x) / c_out] = 1 at every level."""
    network = plain(lambda x, level, label: torch.ones_like(x))
    for t in (0.02, 0.3, 0.9):
        alpha, sigma = VP().alpha(t).item(), VP().sigma(t).item()
        # four equally likely pairs with the moments of independent data and noise
        x0 = sigma_data * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
        x = alpha * x0 + sigma * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
        zero = Denoiser(plain(lambda x, level, label: 0 * x), VP(), sigma_data)(x, t)
        out = Denoiser(network, VP(), sigma_data)(x, t) - zero
        assert network.calls[-1][0].square().mean().item() == pytest.approx(1, abs=1e-12)
        assert ((x0 - zero) / out).square().mean().item() == pytest.approx(1, abs=1e-12)


def gaussian_network(plain, mean, variance, sigma_data):
    """The network that makes `Denoiser` the posterior mean of N(mean, variance I), whatever the process."""

    def function(x, level, label):
        s = (4 * level).exp()[:, None]
        y = x * (s**2 + sigma_data**2).sqrt()
        best = mean + variance / (variance + s**2) * (y - mean)
        return (best - sigma_data**2 / (s**2 + sigma_data**2) * y) * (s**2 + sigma_data**2).sqrt() / (s * sigma_data)

    return plain(function)


@each_process
@pytest.mark.parametrize("t", TIMES, ids=["one time", "a time each"])
def test_posterior_mean_of_a_gaussian_and_its_views(plain, process, t):
    mean = torch.tensor([0.5, -1.5], dtype=torch.float64)
    exact = GaussianMixture([1.0], mean[None], 0.3 * torch.eye(2, dtype=torch.float64)[None]).denoiser(process)
    denoiser = Denoiser(gaussian_network(plain, mean, 0.3, 0.8), process, 0.8)
    x0, noise = mean + 0.3**0.5 * points(32, 2), points(32, 2, seed=1)
    x = process.perturb(x0, t, noise)
    for view in ("__call__", "eps", "score", "velocity"):
        ours, theirs = (getattr(type(d), view)(d, x, t) for d in (denoiser, exact))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9, msg=lambda m, view=view: f"{view}: {m}")


def test_one_network_and_one_grid_of_levels_make_one_sampler():
    """DDIM on VP = DDIM on rectified flow = Euler on the flow of rectified flow, from a finite start, to rounding."""
    network = random_mlp()
    levels = torch.cat([torch.logspace(1.5, -1.5, 12, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    y = 30 * points(16, 2)
    vp, flow = Denoiser(network, VP()), Denoiser(network, RectifiedFlow())
    ends = {}
    for name, denoiser, rule in (("vp", vp, "ddim"), ("flow", flow, "ddim"), ("euler", flow, "euler")):
        grid = denoiser.process.time_of(levels)
        ends[name] = sample(denoiser, denoiser.process.alpha(grid[0]) * y, grid, rule)
    grid = flow.process.time_of(levels)
    with torch.no_grad():
        equation = reverse(flow.process, flow.score, eta=0.0)
        # the integrator of the library knows nothing of rules
        ends["integrate"] = integrate(equation, flow.process.alpha(grid[0]) * y, grid).x
    for name, end in ends.items():
        assert (end - ends["vp"]).abs().max() < 1e-12, name
    assert ends["vp"].std() > 0.1


def test_type_and_shape_follow_the_input():
    denoiser = Denoiser(ResidualMLP((1, 4, 4), 16, 1), VP())
    for t in (0.5, torch.tensor(0.5), torch.full((3,), 0.5), torch.full((3,), 0.5, dtype=torch.float64)):
        assert denoiser(torch.zeros(3, 1, 4, 4), t).dtype == torch.float32
        assert denoiser.double()(torch.zeros(3, 1, 4, 4, dtype=torch.float64), t).dtype == torch.float64
        denoiser.float()
    x, labels = points(3, 2), torch.tensor([0, 2, 1])
    for denoiser in (
        Denoiser(random_mlp(classes=3).float(), VP(), classes=3),
        NoisePredictor(random_mlp(classes=3).float(), DDPM.linear(), classes=3),
    ):
        plain = denoiser(x.float(), 0.5, labels)
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            found = denoiser(x.to(dtype), 0.5, labels)
            # computed in the type of the weights, told in that of the input
            assert torch.equal(found, denoiser(x.to(dtype).float(), 0.5, labels).to(dtype)) and found.dtype == dtype
            assert denoiser.score(x.to(dtype), 0.5, labels).dtype == dtype
        assert (denoiser.double()(x, 0.5, labels) - plain).abs().max() < 1e-3 and plain.abs().max() > 0.1
    with pytest.raises(ValueError, match="x must be finite"):
        Denoiser(random_mlp().float(), VP())(x * 1e300, 0.5)
    x = torch.zeros(3, 1, 4, 4, device="meta")
    assert ResidualMLP((1, 4, 4), 16, 1).to("meta")(x, torch.zeros(3, device="meta")).device.type == "meta"


def test_labels_reach_the_network_and_no_label_is_the_last_one(plain):
    network = plain(lambda x, level, label: 0 * x)
    denoiser, x = Denoiser(network, VP(), classes=3), points(2, 4)
    denoiser(x, 0.5, torch.tensor([2, 0]))
    denoiser(x, 0.5, torch.tensor([3, 1], dtype=torch.int32))
    denoiser(x, 0.5)
    assert [label.tolist() for _, _, label in network.calls] == [[2, 0], [3, 1], [3, 3]]


def test_views_pass_the_label_on(plain):
    network = plain(lambda x, level, label: x * label[:, None])
    denoiser, x, label = Denoiser(network, VP(), classes=3), points(2, 4), torch.tensor([2, 1])
    for view in (denoiser.eps, denoiser.score, denoiser.velocity):
        torch.testing.assert_close(view(x, 0.5, label)[0], view(x, 0.5, torch.tensor([2, 0]))[0])
        assert (view(x, 0.5, label)[1] - view(x, 0.5, torch.tensor([2, 0]))[1]).abs().max() > 1e-3


def test_pixels_and_data():
    denoiser = Denoiser(ResidualMLP((2,), 16, 1), VP(), pixel_mean=0.25, pixel_std=0.5)
    torch.testing.assert_close(
        denoiser.to_pixels(torch.tensor([-1.0, 0.0, 1.0, 2.0])), torch.tensor([0, 0.25, 0.75, 1])
    )
    pixels = torch.tensor([0.0, 0.1, 1.0])
    torch.testing.assert_close(denoiser.to_pixels(denoiser.from_pixels(pixels)), pixels)
    assert denoiser.from_pixels(torch.tensor(0.0)).item() == -0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, x: d(x[:, :1], 0.5), "x must have shape (batch, 2), got (4, 1)"),
        (lambda d, x: d(x / 0, 0.5), "x must be finite, got NaN or infinity"),
        (lambda d, x: d(x * math.nan, 0.5), "x must be finite, got NaN or infinity"),
        (lambda d, x: d(x.long(), 0.5), "x must be floating, got torch.int64"),
        (lambda d, x: d(x, 0.0), "t must have a finite, positive sigma/alpha, got t = [0.0]"),
        (lambda d, x: d(x, 1.3), "t must lie in [0, 1], got 1.3"),
        (lambda d, x: d(x, math.nan), "t must lie in [0, 1], got nan"),
        (lambda d, x: d(x, torch.full((3,), 0.5)), "t must be a number, a 0-d tensor or one value per sample"),
        (lambda d, x: d(x, 0.5, torch.tensor([0, 1, 2])), "label must be integers of shape (4,), got torch.int64 (3,)"),
        (lambda d, x: d(x, 0.5, torch.ones(4)), "label must be integers of shape (4,), got torch.float32 (4,)"),
        (lambda d, x: d(x, 0.5, torch.tensor([0, 1, 2, 4])), "label must lie in [0, 3], got 0 to 4"),
        (lambda d, x: d(x, 0.5, torch.tensor([0, 1, -1, 3])), "label must lie in [0, 3], got -1 to 3"),
        (lambda d, x: Denoiser(d.network, d.process, 0.0), "sigma_data must be positive, got 0.0"),
        (lambda d, x: Denoiser(d.network, d.process, math.nan), "sigma_data must be positive, got nan"),
        (lambda d, x: Denoiser(d.network, d.process)(x, 0.5, torch.tensor([1, 1, 1, 1])), "label must be None for a "),
        (lambda d, x: Denoiser(d.network, RectifiedFlow())(x, 1.0), "t must have a finite, positive sigma/alpha"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    denoiser = Denoiser(random_mlp(classes=3), EDM(), shape=(2,), classes=3)
    with pytest.raises(ValueError) as caught:
        call(denoiser, points(4, 2))
    assert message in str(caught.value)


@pytest.mark.parametrize("t", [0.25, torch.tensor([0.001, 0.5, 0.75, 1.0], dtype=torch.float64)])
def test_noise_predictor_is_the_formula_of_ddpm(plain, t):
    """D = (x - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar) at step k = 1000 t, which the network counts from 0."""
    network, x = plain(lambda x, level, label: x.cos()), points(4, 3, 2, 2)
    d = NoisePredictor(network, DDPM.linear())(x, t)
    k = torch.as_tensor(1000 * t, dtype=torch.float64).expand(4).round().long()
    bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[k - 1][:, None, None, None]
    torch.testing.assert_close(d, (x - (1 - bar).sqrt() * x.cos()) / bar.sqrt(), rtol=1e-11, atol=1e-11)
    (_, level, label), *_ = network.calls
    torch.testing.assert_close(level, (k - 1).double(), rtol=0, atol=1e-9)
    assert label is None


def test_noise_predictor_views_steps_and_labels(plain):
    chain = DDPM(torch.linspace(0.05, 0.2, 10, dtype=torch.float64))
    network, x, label = plain(lambda x, level, label: 0.5 * x), points(4, 2), torch.tensor([1, 2, 3, 4])
    denoiser = NoisePredictor(network, chain, steps=10, classes=4)
    torch.testing.assert_close(denoiser.eps(x, 0.7, label), 0.5 * x, rtol=1e-12, atol=1e-12)
    assert network.calls[0][1].tolist() == pytest.approx([6.0] * 4) and torch.equal(network.calls[0][2], label)
    assert sample(denoiser, x, time_grid(chain, 10, "ddpm"), "ddim").isfinite().all()
    with pytest.raises(ValueError, match=r"t must be at least 1/10, got 0.05"):
        denoiser(x, 0.05)
    denoiser(x, 0.1)
    with pytest.raises(ValueError, match="x must be finite"):
        denoiser(x * math.nan, 0.1)
    with pytest.raises(ValueError, match="x must be floating, got torch.int64"):
        denoiser(x.long(), 0.1)
    with pytest.raises(ValueError, match=r"label must be None for a network without classes, got \(4,\) labels"):
        NoisePredictor(network, chain, steps=10)(x, 0.1, label)


def test_noise_predictor_has_as_many_steps_as_its_chain(plain):
    network, x = plain(lambda x, level, label: 0.5 * x), points(4, 2)
    denoiser = NoisePredictor(network, DDPM.linear(50))
    assert denoiser.steps == 50
    denoiser(x, 0.5)
    assert network.calls[0][1].tolist() == pytest.approx([24.0] * 4)
    assert NoisePredictor(network, VP(), 100).steps == 100
    with pytest.raises(ValueError, match=r"steps must be 50 for DDPM\(50 betas .*\), got 1000"):
        NoisePredictor(network, DDPM.linear(50), 1000)
    for steps in (None, 0):
        with pytest.raises(ValueError, match=rf"steps must be a positive number for VP\(.*\), got {steps}"):
            NoisePredictor(network, VP(), steps)
