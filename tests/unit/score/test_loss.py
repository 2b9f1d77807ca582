import math

import pytest
import torch

from hjbridge.score import Denoiser, denoising_loss, loss_weight, noise_levels
from hjbridge.score.loss import WEIGHTINGS, uniform_times
from hjbridge.sde.processes import DDPM, EDM, VE, VP, Cosine, RectifiedFlow, SubVP

PROCESSES = [VP(), SubVP(), VE(), EDM(), Cosine(), RectifiedFlow(), DDPM.linear()]
each_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
T = torch.tensor([0.0305, 0.2515, 0.5005, 0.9005], dtype=torch.float64)

# data of variance 1 and noise of variance 1 that are uncorrelated: every second moment of the pair is exact
DATA = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
NOISE = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)


class Linear:
    """D(x) = k x, with the process it stands for."""

    def __init__(self, process, factor, sigma_data=1.0):
        self.process, self.factor, self.sigma_data = process, factor, sigma_data

    def __call__(self, x, t, label=None):
        return self.factor * x


def rates(process):
    """d alpha/dt, d sigma/dt and d(alpha^2/sigma^2)/dt by autograd."""
    t = T.clone().requires_grad_()
    values = process.alpha(t), process.sigma(t), process.alpha(t) ** 2 / process.sigma(t) ** 2
    return [torch.autograd.grad(v.sum(), t)[0] for v in values]


@each_process
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_weight_makes_the_error_of_d_the_error_of_what_it_is_named_after(process, weighting):
    """Not from the formulas: from the network's scalings, from eps and velocity, and from the slope of the SNR."""
    alpha, sigma = process.alpha(T), process.sigma(T)
    weight = loss_weight(process, T, weighting, sigma_data=0.6)
    alpha_rate, sigma_rate, snr_rate = rates(process) if weighting in ("velocity", "ml") else (0, 0, 0)
    if weighting == "edm":
        # F = (D - c_skip x) / c_out, so that |F - F_0|^2 = |D - x_0|^2 / c_out^2
        s = sigma / alpha
        expected = (s * 0.6 / (s**2 + 0.6**2).sqrt()) ** -2
    elif weighting == "eps":
        # eps = (x - alpha D) / sigma
        expected = (alpha / sigma) ** 2
    elif weighting == "velocity":
        # velocity = alpha' D + sigma' (x - alpha D) / sigma
        expected = (alpha_rate - sigma_rate * alpha / sigma) ** 2
    else:
        # Kingma et al. 2021, eq. 17: half the rate at which the SNR falls
        expected = -snr_rate / 2
    torch.testing.assert_close(weight, expected, rtol=1e-9, atol=0)


def test_weights_in_closed_form():
    t = torch.tensor(0.3, dtype=torch.float64)
    assert loss_weight(RectifiedFlow(), t, "velocity").item() == pytest.approx(1 / 0.09, rel=1e-12)
    assert loss_weight(EDM(80.0), t, "eps").item() == pytest.approx(1 / 24**2, rel=1e-12)
    assert loss_weight(EDM(80.0), t, "edm", 0.5).item() == pytest.approx((24**2 + 0.25) / 12**2, rel=1e-12)
    rate, kept = 0.1 + 19.9 * 0.3, math.exp(-(0.1 * 0.3 + 19.9 * 0.3**2 / 2))
    assert loss_weight(VP(), t, "ml").item() == pytest.approx(rate * kept / (2 * (1 - kept) ** 2), rel=1e-12)
    assert loss_weight(VP(), t).item() == loss_weight(VP(), t, "edm", 1.0).item()
    with pytest.raises(ValueError, match="weighting must be one of edm, eps, velocity, ml, got 'snr'"):
        loss_weight(VP(), t, "snr")


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("t", [0.15, 0.8])
def test_expected_loss_of_a_linear_denoiser_on_a_gaussian(weighting, t):
    """E w |k x_t - x_0|^2 = w ((k alpha - 1)^2 c + k^2 sigma^2), from points with exactly these moments."""
    process, factor, c = VP(), 0.4, 0.3
    alpha, sigma = process.alpha(t).item(), process.sigma(t).item()
    weight = loss_weight(process, torch.tensor(t, dtype=torch.float64), weighting, 0.6).item()
    loss = denoising_loss(Linear(process, factor, 0.6), c**0.5 * DATA, t=t, noise=NOISE, weighting=weighting)
    expected = weight * ((factor * alpha - 1) ** 2 * c + factor**2 * sigma**2)
    assert loss.shape == () and loss.item() == pytest.approx(expected, rel=1e-12)


def test_the_loss_is_a_mean_over_samples_each_with_its_time_and_coordinates():
    process, t = EDM(10.0), torch.tensor([0.1, 0.1, 0.5, 0.5], dtype=torch.float64)
    x0, noise = DATA.expand(4, 3), NOISE.expand(4, 3)
    loss = denoising_loss(Linear(process, 0.0), x0, t=t, noise=noise, weighting="eps")
    assert loss.item() == pytest.approx((1 / 1**2 + 1 / 5**2) / 2, rel=1e-12)


@each_process
def test_the_minimiser_is_the_posterior_mean(process):
    t, c = 0.4, 0.3
    alpha, sigma = process.alpha(t).item(), process.sigma(t).item()
    best = alpha * c / (alpha**2 * c + sigma**2)
    factor = torch.tensor(best, dtype=torch.float64, requires_grad=True)
    loss = denoising_loss(Linear(process, factor), c**0.5 * DATA, t=t, noise=NOISE)
    assert torch.autograd.grad(loss, factor)[0].item() == pytest.approx(0, abs=1e-10 * max(1, loss.item()))
    for other in (0.9 * best, 1.1 * best):
        assert denoising_loss(Linear(process, other), c**0.5 * DATA, t=t, noise=NOISE).item() > loss.item()
    # at the minimum the loss is w times the posterior variance
    s = sigma / alpha
    assert loss.item() == pytest.approx((s**2 + 1) / s**2 * c * s**2 / (c + s**2), rel=1e-10)


@pytest.mark.parametrize("process", [VP(), EDM(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_levels_are_normal_one_from_each_slice_of_probability(process, generator):
    n, mean, std = 1000, 0.3, 0.7
    t = noise_levels(process, n, mean=mean, std=std, generator=generator)
    assert t.shape == (n,) and t.dtype == torch.float64
    z = (process.ratio(t).log() - mean) / std
    place = n * (1 + torch.erf(z / math.sqrt(2))) / 2 - torch.arange(n)
    assert place.min() > -1e-9 and place.max() < 1 + 1e-9
    # uniform inside the slices
    assert place.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / n))
    assert place.var().item() == pytest.approx(1 / 12, rel=0.15)


def test_levels_default_to_a_wide_bell_and_keep_to_what_the_process_reaches(generator):
    log_ratio = EDM().ratio(noise_levels(EDM(), 10_000, generator=generator)).log()
    assert log_ratio.mean().item() == pytest.approx(-0.4, abs=2e-3)
    assert log_ratio.std().item() == pytest.approx(1.4, abs=5e-3)
    t = noise_levels(VE(0.5, 2.0), 100, mean=0.0, std=3.0, generator=generator)
    assert t.min() == 0 and t.max() == 1 and 0.05 < ((t > 0) & (t < 1)).double().mean() < 0.3
    low = EDM().ratio(noise_levels(EDM(), 100, mean=-30.0, std=1.0, generator=generator))
    torch.testing.assert_close(low, torch.full_like(low, 1e-6), rtol=1e-9, atol=0)


class Recorder(Linear):
    classes = 10

    def __call__(self, x, t, label=None):
        self.x, self.t, self.label = x, t, label
        return 0 * x


def test_uniform_times_are_uniform_one_from_each_slice(generator):
    for process, first in ((VP(), 1e-5), (SubVP(), SubVP().time_of(1e-3).item()), (VE(), 0.0), (EDM(), 1e-3 / 80)):
        t = uniform_times(process, 1000, generator=generator)
        assert t.dtype == torch.float64 and t.shape == (1000,)
        # song's smallest time: beta_min t = s^2
        scaled = (t - first) / (1 - first)
        assert ((scaled * 1000).floor().long() == torch.arange(1000)).double().mean() > 0.998
        assert scaled.min() > -1e-6 and t.max() <= 1
        torch.testing.assert_close(scaled.mean().item(), 0.5, rtol=0, atol=4 / (1000 * math.sqrt(12 * 1000)) + 1e-5)
    shifted = uniform_times(VP(), 1, ratio_min=0.5, generator=generator)
    assert shifted >= VP().time_of(0.5)
    with pytest.raises(ValueError, match="ratio_min must be positive, got 0"):
        uniform_times(VP(), 4, ratio_min=0)
    with pytest.raises(ValueError, match="process must have a finite sigma/alpha at t = 1, got Cosine"):
        uniform_times(Cosine(), 4)


def test_label_drop_hides_the_right_share(generator):
    n, label = 20_000, torch.arange(20_000) % 10
    denoiser = Recorder(VP(), 0.0)
    denoising_loss(denoiser, torch.zeros(n, 1), label, label_drop=0.3, generator=generator)
    hidden = denoiser.label == 10
    assert hidden.double().mean().item() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / n))
    assert torch.equal(denoiser.label[~hidden], label[~hidden])
    # hidden without regard to the label, to the time or to the place in the batch
    assert abs(hidden[: n // 2].double().mean() - hidden[n // 2 :].double().mean()) < 4 * math.sqrt(0.84 / n)
    denoising_loss(denoiser, torch.zeros(n, 1), label, generator=generator)
    assert denoiser.label is label
    denoising_loss(denoiser, torch.zeros(n, 1), None, label_drop=0.3, generator=generator)
    assert denoiser.label is None


def test_times_and_noise_are_drawn_from_the_generator_and_the_process():
    denoiser, x0 = Recorder(RectifiedFlow(), 0.0), torch.full((4000, 2), 3.0, dtype=torch.float64)
    losses = [denoising_loss(denoiser, x0, generator=torch.Generator().manual_seed(s)).item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    generator = torch.Generator().manual_seed(2)
    assert torch.equal(denoiser.t, noise_levels(RectifiedFlow(), 4000, generator=generator))
    z = (denoiser.x - (1 - denoiser.t[:, None]) * 3) / denoiser.t[:, None]
    assert z.mean().item() == pytest.approx(0, abs=4 / math.sqrt(8000))
    assert z.var().item() == pytest.approx(1, abs=4 * math.sqrt(2 / 8000))


def test_the_weight_uses_the_sigma_data_of_the_denoiser(plain):
    t = torch.tensor(0.02, dtype=torch.float64)
    denoiser = Denoiser(plain(lambda x, level, label: 0 * x), EDM(), sigma_data=0.5)
    loss = denoising_loss(denoiser, DATA, t=t, noise=NOISE)
    s, variance = 1.6, 0.25 / (1.6**2 + 0.25)
    error = (variance - 1) ** 2 + variance**2 * s**2
    assert loss.item() == pytest.approx((s**2 + 0.25) / (s * 0.5) ** 2 * error, rel=1e-10)
    # a denoiser without one counts as 1
    exact = type("Exact", (), {"process": EDM(), "__call__": lambda self, x, t, label=None: 0 * x})()
    assert denoising_loss(exact, DATA, t=t, noise=NOISE).item() == pytest.approx((s**2 + 1) / s**2, rel=1e-10)


def test_a_time_without_noise_is_refused_where_an_exact_denoiser_has_no_error(mixture):
    for process, end in ((VP(), 0.0), (DDPM.linear(), 0.0), (RectifiedFlow(), 1.0)):
        with pytest.raises(ValueError, match=f"t must have a finite, positive sigma/alpha, got t = {end:g}"):
            denoising_loss(mixture.denoiser(process), torch.zeros(4, 2, dtype=torch.float64), t=end)
    assert denoising_loss(mixture.denoiser(VE()), torch.zeros(4, 2, dtype=torch.float64), t=0.0).isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": torch.full((3,), 0.5)}, "t must have shape (4,), got (3,)"),
        ({"t": 1.5}, "t must lie in [0, 1], got 1.5"),
        ({"t": 0.0}, "t must have a finite, positive sigma/alpha, got t = 0"),
        ({"t": torch.tensor([0.5, 0.5, 0.0, 0.5])}, "t must have a finite, positive sigma/alpha, got t = 0"),
        ({"noise": NOISE * math.nan}, "noise must be finite, got NaN or infinity"),
        ({"noise": torch.zeros(4, 2)}, "noise must have the shape of x0, (4, 1), got (4, 2)"),
        ({"weighting": "snr"}, "weighting must be one of edm, eps, velocity, ml, got 'snr'"),
        ({"label_drop": 1.0}, "label_drop must lie in [0, 1), got 1.0"),
        ({"label_drop": -0.1}, "label_drop must lie in [0, 1), got -0.1"),
    ],
)
def test_errors_name_what_is_wrong(options, message):
    with pytest.raises(ValueError) as caught:
        denoising_loss(Linear(VP(), 0.5), DATA, **options)
    assert message in str(caught.value)
