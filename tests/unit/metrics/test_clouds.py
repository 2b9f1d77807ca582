import math

import pytest
import torch
from scipy.integrate import quad
from scipy.special import ndtri

from hjbridge.metrics import clouds, wasserstein
from hjbridge.sde import VP, GaussianMixture, integrate, reverse

BUMPS = GaussianMixture([0.3, 0.7], [[-2.0], [1.5]], [[[0.25]], [[0.16]]])
UNIT = GaussianMixture([1.0], [[0.0]], [[[1.0]]])


def test_the_distribution_function_is_the_integral_of_the_density():
    x = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    integral = torch.cumulative_trapezoid(BUMPS.log_prob(x[:, None]).exp(), x)
    torch.testing.assert_close(clouds.distribution(BUMPS, x)[1:], integral, rtol=0, atol=1e-6)


def test_quantiles_invert_the_distribution_function():
    q = clouds.quantiles(BUMPS, 500)
    assert q.shape == (500, 1)
    levels = (torch.arange(500, dtype=torch.float64) + 0.5) / 500
    torch.testing.assert_close(clouds.distribution(BUMPS, q[:, 0]), levels, rtol=0, atol=1e-6)


def test_quantiles_of_a_normal_hold_to_the_tails():
    wide = GaussianMixture([1.0], [[5.0]], [[[9.0]]])
    levels = (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    for law, mean, deviation in ((UNIT, 0, 1), (wide, 5, 3)):
        exact = mean + deviation * torch.from_numpy(ndtri(levels.numpy()))
        # the outermost lie 3.7 standard deviations from the mean; linear interpolation leaves h^2 |z| / 8
        torch.testing.assert_close(clouds.quantiles(law, 5000)[:, 0], exact, rtol=0, atol=5e-7)


def test_the_floor_of_a_normal_counts_its_tails():
    def root(x: float) -> float:
        return math.sqrt(0.25 * math.erfc(x / math.sqrt(2)) * math.erfc(-x / math.sqrt(2)))

    integral = 2 * quad(root, 0, 30)[0]
    assert clouds.floor(UNIT, 100).item() == pytest.approx(2 / math.sqrt(100 * math.pi) * integral, rel=1e-8)


@pytest.mark.parametrize(
    ("of_law", "of_points", "wider"),
    [(torch.float32, torch.float64, torch.float64), (torch.float64, torch.float32, torch.float64),
     (torch.float32, torch.float32, torch.float32)],
)  # fmt: skip
def test_types_may_differ_and_the_wider_counts(of_law, of_points, wider):
    parts = (BUMPS.weights, BUMPS.means, BUMPS.covariances)
    law, x = GaussianMixture(*(part.to(of_law) for part in parts)), torch.linspace(-4, 4, 9, dtype=of_points)
    found = clouds.distribution(law, x)
    assert found.dtype == wider
    torch.testing.assert_close(found.double(), clouds.distribution(BUMPS, x.double()), rtol=0, atol=1e-6)
    for ours, exact in ((clouds.floor(law, 50), clouds.floor(BUMPS, 50)),
                        (clouds.quantiles(law, 50), clouds.quantiles(BUMPS, 50))):  # fmt: skip
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_the_floor_is_the_mean_distance_of_two_exact_draws():
    n, count = 400, 400
    generator = torch.Generator().manual_seed(0)
    found = clouds.from_exact(BUMPS.sample(n * count, generator)[None], [BUMPS], n, generator)[0]
    error = found.std().item() / math.sqrt(count)
    assert found.mean().item() == pytest.approx(clouds.floor(BUMPS, n).item(), abs=4 * error)
    assert error < 0.03 * clouds.floor(BUMPS, n).item()


def test_the_floor_scales_with_the_width_of_the_law_and_the_root_of_n():
    wide = GaussianMixture([1.0], [[5.0]], [[[9.0]]])
    assert clouds.floor(wide, 100).item() == pytest.approx(3 * clouds.floor(UNIT, 100).item(), rel=1e-6)
    assert clouds.floor(UNIT, 100).item() == pytest.approx(2 * clouds.floor(UNIT, 400).item(), rel=1e-12)


def test_each_cloud_is_held_against_a_fresh_draw_of_its_own_law():
    states = torch.randn(2, 20, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = clouds.from_exact(states, [UNIT, BUMPS], 5, torch.Generator().manual_seed(2))
    assert found.shape == (2, 4)
    again = torch.Generator().manual_seed(2)
    exact = [law.sample(20, again) for law in (UNIT, BUMPS)]
    assert found[1, 2] == wasserstein(states[1, 10:15, 0], exact[1][10:15, 0])


def test_the_members_of_the_family_stay_on_the_floor_at_their_times_and_differ_in_their_paths():
    n, times = 500, [0.5, 0.25, 0.0]
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    found = clouds.family(BUMPS, VP(), {"ode": 0.0, "sde": 1.0}, times, (n, 8, 200), generators)
    floor = torch.stack([clouds.floor(BUMPS.marginal(VP(), t), n) for t in times])
    for name, member in found.items():
        assert member.distances.shape == (3, 16)
        ratio = member.distances / floor[:, None]
        # one cloud varies by about two fifths of the floor; clouds at another of the three times lie ten floors away
        assert ((ratio.mean(dim=1) - 1).abs() < 4 * 0.4 / math.sqrt(16)).all(), name
    assert found["exact"].variations == []
    # the integral of g^2 of VP is 10.05; a flow's sum of squares falls with the step
    assert found["sde"].variations == pytest.approx([10.05, 10.05], rel=0.05)
    assert max(found["ode"].variations) < 0.03


def test_a_member_is_what_one_would_run_by_hand():
    found = clouds.family(BUMPS, VP(), {"half": 0.5}, [0.5], (20, 1, 10), [torch.Generator().manual_seed(3)])["half"]
    rng, law = torch.Generator().manual_seed(3), BUMPS.marginal(VP(), 0.5)
    for _ in range(2):  # the exact draws and those they are held against
        law.sample(20, rng)
    start = BUMPS.marginal(VP(), 1.0).sample(20, rng)
    equation = reverse(VP(), BUMPS.denoiser(VP()).score, 0.5)
    path = integrate(equation, start, torch.linspace(1, 0, 11, dtype=torch.float64), generator=rng, record=True)
    assert found.distances.item() == wasserstein(path.states[5, :, 0], law.sample(20, rng)[:, 0])
    assert found.variations == [path.states.diff(dim=0).square().sum(dim=0).mean().item()]


@pytest.mark.parametrize("t", [0.55, -0.1, 1.1])
def test_times_off_the_grid_are_named(t):
    with pytest.raises(ValueError, match=f"times must be points of the grid of 10 steps, got {t:g}"):
        clouds.family(BUMPS, VP(), {"ode": 0.0}, [0.5, t], (20, 1, 10), [torch.Generator()])


def test_bad_input_is_named():
    plane = GaussianMixture([1.0], [[0.0, 0.0]], [[[1.0, 0.0], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="law must be one-dimensional, got 2"):
        clouds.distribution(plane, torch.zeros(3))
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        clouds.quantiles(UNIT, 0)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        clouds.floor(UNIT, 0)
    with pytest.raises(ValueError, match="states must be .2, clouds . 3, 1., got .2, 10, 1."):
        clouds.from_exact(torch.zeros(2, 10, 1), [UNIT, UNIT], 3)
