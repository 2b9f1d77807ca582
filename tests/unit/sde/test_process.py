"""Forward processes against their closed forms."""

import math

import pytest
import torch

from hjbridge.sde import DDPM, EDM, VE, VP, Cosine, Process, RectifiedFlow, SubVP
from hjbridge.sde.process import broadcast

B0, B1 = 0.1, 20.0
CHAIN = [0.1, 0.3, 0.2, 0.4]
TURN = math.pi / 2 / 1.008


def integral(t):
    return B0 * t + (B1 - B0) * t**2 / 2


def beta(t):
    return B0 + (B1 - B0) * t


def chain(t):
    """log alpha_bar and its slope for DDPM(CHAIN), log-linear between the points."""
    k = min(int(t * 4), 3)
    logs = [math.log(1 - b) for b in CHAIN]
    return sum(logs[:k]) + logs[k] * (4 * t - k), 4 * logs[k]


#: process: alpha, sigma, drift coefficient, g^2 at time t
CLOSED_FORMS = {
    VP(): (
        lambda t: math.exp(-integral(t) / 2),
        lambda t: math.sqrt(-math.expm1(-integral(t))),
        lambda t: -beta(t) / 2,
        beta,
    ),
    SubVP(): (
        lambda t: math.exp(-integral(t) / 2),
        lambda t: -math.expm1(-integral(t)),
        lambda t: -beta(t) / 2,
        lambda t: -beta(t) * math.expm1(-2 * integral(t)),
    ),
    VE(): (
        lambda t: 1.0,
        lambda t: 0.01 * 5000**t,
        lambda t: 0.0,
        lambda t: 2 * math.log(5000) * (0.01 * 5000**t) ** 2,
    ),
    EDM(): (lambda t: 1.0, lambda t: 80 * t, lambda t: 0.0, lambda t: 2 * t * 80**2),
    Cosine(): (
        lambda t: math.cos(TURN * (t + 0.008)) / math.cos(TURN * 0.008),
        lambda t: math.sqrt(1 - (math.cos(TURN * (t + 0.008)) / math.cos(TURN * 0.008)) ** 2),
        lambda t: -math.tan(TURN * (t + 0.008)) * TURN,
        lambda t: 2 * math.tan(TURN * (t + 0.008)) * TURN,
    ),
    RectifiedFlow(): (lambda t: 1 - t, lambda t: t, lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t)),
    DDPM(CHAIN): (
        lambda t: math.exp(chain(t)[0] / 2),
        lambda t: math.sqrt(-math.expm1(chain(t)[0])),
        lambda t: chain(t)[1] / 2,
        lambda t: -chain(t)[1],
    ),
}
PROCESSES = list(CLOSED_FORMS)
INSIDE = [0.013, 0.2, 0.41, 0.66, 0.987]
NAMES = [type(p).__name__ for p in PROCESSES]
each = pytest.mark.parametrize("process", PROCESSES, ids=NAMES)


@each
def test_coefficients_equal_closed_forms(process):
    alpha, sigma, drift, square = CLOSED_FORMS[process]
    t = torch.tensor(INSIDE, dtype=torch.float64)
    for given, wanted in (
        (process.alpha(t), alpha),
        (process.sigma(t), sigma),
        (process.drift_coef(t), drift),
        (process.diffusion(t) ** 2, square),
        (process.ratio(t), lambda s: sigma(s) / alpha(s)),
    ):
        expected = torch.tensor([wanted(s) for s in INSIDE], dtype=torch.float64)
        torch.testing.assert_close(given, expected, rtol=1e-10, atol=0)


@each
def test_finite_at_zero_and_start_of_noise(process):
    assert process.alpha(0.0).item() == pytest.approx(1, abs=1e-14)
    assert process.sigma(0.0).item() == pytest.approx(0.01 if isinstance(process, VE) else 0, abs=1e-14)
    assert math.copysign(1, process.sigma(0.0)) == math.copysign(1, process.ratio(0.0)) == 1
    assert math.isfinite(process.drift_coef(0.0)) and math.isfinite(process.diffusion(0.0))
    assert process.sigma(1.0).item() == pytest.approx(
        {"VE": 50, "EDM": 80, "DDPM": math.sqrt(1 - 0.9 * 0.7 * 0.8 * 0.6)}.get(type(process).__name__, 1), rel=1e-4
    )


@each
def test_time_takes_every_form(process):
    for function in (process.alpha, process.sigma, process.ratio, process.drift_coef, process.diffusion):
        batch = function(torch.tensor([0.25, 0.6], dtype=torch.float64))
        assert batch.shape == (2,) and batch.dtype == torch.float64 and not batch.requires_grad
        for t in (0.6, torch.tensor(0.6, dtype=torch.float64)):
            value = function(t)
            assert value.shape == () and value.dtype == torch.float64
            torch.testing.assert_close(value, batch[1], rtol=1e-13, atol=0)
        assert function(torch.tensor([0.25, 0.6])).dtype == torch.float32
    assert VP().alpha(1).dtype == torch.float64


@each
def test_every_function_of_time_is_differentiable(process):
    t = torch.tensor([0.05, 0.4, 0.7], dtype=torch.float64, requires_grad=True)
    for function in (process.alpha, process.sigma, process.ratio, process.drift_coef, process.diffusion):
        assert torch.autograd.gradcheck(function, t)
    ratio = process.ratio(t).detach().requires_grad_()
    assert torch.autograd.gradcheck(process.time_of, ratio, eps=1e-7)


@each
def test_time_of_inverts_the_ratio(process):
    t = torch.linspace(0.002, 0.998, 50, dtype=torch.float64)
    ratio = process.ratio(t)
    torch.testing.assert_close(process.time_of(ratio), t, rtol=1e-10, atol=0)
    # the bisection that every process inherits
    torch.testing.assert_close(Process.time_of(process, ratio), t, rtol=1e-10, atol=0)
    torch.testing.assert_close(process.time_of(ratio.float()), t.float(), rtol=1e-4, atol=1e-5)
    one = process.time_of(ratio[7].item())
    assert one.shape == () and one.dtype == torch.float64 and one.item() == pytest.approx(t[7].item(), rel=1e-10)
    ends = torch.stack([process.ratio(0.0), process.ratio(1.0)])
    torch.testing.assert_close(process.time_of(ends), torch.tensor([0.0, 1.0]).double(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(1.0, 1.5), EDM(), DDPM(CHAIN)], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ratio_beyond_the_ends_by_rounding_has_a_time_in_the_unit_interval(process, dtype):
    slack = 6 * torch.finfo(dtype).eps
    beyond = torch.stack([process.ratio(0.0) * (1 - slack), process.ratio(1.0) * (1 + slack)]).to(dtype)
    for inverse in (process.time_of, lambda ratio: Process.time_of(process, ratio)):
        t = inverse(beyond)
        assert t[0] >= 0 and t[1] <= 1
        torch.testing.assert_close(t, torch.tensor([0.0, 1.0], dtype=dtype), rtol=0, atol=50 * slack)


@pytest.mark.parametrize(("ratio", "time"), [(math.inf, 1.0), (1e17, 1.0), (3.0, 0.75), (0.0, 0.0)])
def test_time_of_by_bisection_where_the_signal_ends(ratio, time):
    """sigma/alpha = t / (1 - t) grows beyond all numbers; what Newton's step divides is then not finite."""
    assert Process.time_of(RectifiedFlow(), ratio).item() == pytest.approx(time, rel=1e-15)


@pytest.mark.parametrize(
    ("process", "ratio", "time"),
    [
        (VP(), 3.0, (-0.1 + math.sqrt(0.01 + 2 * 19.9 * math.log(10))) / 19.9),
        (VP(2.0, 2.0), 1.0, math.log(2) / 2),
        (RectifiedFlow(), 40.0, 40 / 41),
        (RectifiedFlow(), math.inf, 1.0),
        (EDM(), 20.0, 0.25),
        (EDM(50.0), 20.0, 0.4),
        (VE(), 0.01 * math.sqrt(5000), 0.5),
    ],
)
def test_time_of_closed_forms(process, ratio, time):
    assert process.time_of(ratio).item() == pytest.approx(time, rel=1e-12)


def test_ddpm_is_the_chain():
    process = DDPM.linear()
    assert process.alpha(1.0).item() ** 2 == pytest.approx(4.035829765e-5, rel=1e-9)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(process.alpha(t) ** 2, (1 - betas).cumprod(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(process.betas, betas, rtol=0, atol=0)
    torch.testing.assert_close(DDPM.linear(3, 0.1, 0.5).betas, torch.tensor([0.1, 0.3, 0.5]).double())
    assert "1000 betas from 0.0001 to 0.02" in repr(process)


@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 4, 4)], ids=["vectors", "images"])
def test_perturb_scales_each_sample_by_its_time(shape):
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    noised = RectifiedFlow().perturb(x, t, z)
    for i in range(3):
        torch.testing.assert_close(noised[i], (1 - t[i]) * x[i] + t[i] * z[i], rtol=1e-14, atol=0)
        torch.testing.assert_close(RectifiedFlow().perturb(x, t[i], z)[i], noised[i], rtol=1e-14, atol=0)
    assert RectifiedFlow().perturb(x.float(), t, z.float()).dtype == torch.float32
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="noise must be finite, got NaN or infinity"):
            RectifiedFlow().perturb(x, t, z * bad)


def test_prior_sample_is_the_gaussian_at_its_time():
    process = EDM()
    z = torch.randn((4, 2), generator=torch.Generator().manual_seed(1))
    drawn = process.prior_sample((4, 2), torch.Generator().manual_seed(1))
    torch.testing.assert_close(drawn, 80 * z, rtol=1e-6, atol=0)
    drawn = VP().prior_sample((4, 2), torch.Generator().manual_seed(1), t=0.5, mean=torch.tensor([1.0, -2.0]))
    alpha, sigma, _, _ = (form(0.5) for form in CLOSED_FORMS[VP()])
    torch.testing.assert_close(drawn, alpha * torch.tensor([1.0, -2.0]) + sigma * z)
    assert process.prior_sample((2, 1), dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 1, 4, 4)])
def test_broadcast(shape):
    x = torch.zeros(shape)
    assert broadcast(torch.tensor(2.0, dtype=torch.float64), x).dtype == torch.float32
    assert broadcast(torch.arange(5), x).shape == (5, *[1] * (len(shape) - 1))
