"""Trajectories of the sampling rules against diffusers' schedulers, with one exact denoiser and one start."""

from itertools import repeat

import pytest
import torch

from hjbridge.score import sample, time_grid
from hjbridge.sde.processes import DDPM, RectifiedFlow

# diffusers turns tensors into arrays in a way that NumPy is about to forbid
pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]

CHAIN = DDPM.linear()
STEPS = 20


def scheduler(name, **options):
    """A scheduler on our chain, its table in float64; predictions are those of the data, nothing is clipped."""
    import diffusers

    made = getattr(diffusers, name)(prediction_type="sample", **options)
    table = CHAIN.alpha(torch.arange(1, 1001) / torch.tensor(1000.0, dtype=torch.float64)) ** 2
    # what the constructor made is the same table in float32
    torch.testing.assert_close(made.alphas_cumprod.double(), table, rtol=2e-5, atol=0)
    made.alphas_cumprod = table
    return made


def walk(made, denoiser, x, options=repeat({})):  # noqa: B008
    """States of the scheduler's own loop from x, the start included; its step k is t = (k + 1)/1000."""
    states = [x]
    for k, option in zip(made.timesteps.tolist(), options, strict=False):
        x = made.step(denoiser(x, (k + 1) / 1000), k, x, **option).prev_sample
        states.append(x)
    return torch.stack(states)


@pytest.fixture
def start(generator):
    return torch.randn(64, 2, dtype=torch.float64, generator=generator)


def test_grid_of_kind_ddpm_is_the_trailing_one_of_diffusers():
    made = scheduler("DDIMScheduler", clip_sample=False, timestep_spacing="trailing")
    for n in (7, 20, 50, 999, 1000):
        made.set_timesteps(n)
        assert (1000 * time_grid(CHAIN, n, "ddpm")[:-1] - 1).round().long().tolist() == made.timesteps.tolist()


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_ddim(mixture, start, spacing):
    made = scheduler("DDIMScheduler", clip_sample=False, timestep_spacing=spacing)
    made.set_timesteps(STEPS)
    grid = torch.cat([(made.timesteps.double() + 1) / 1000, torch.zeros(1, dtype=torch.float64)])
    denoiser = mixture.denoiser(CHAIN)
    ours = sample(denoiser, start, grid, "ddim", record=True).states
    torch.testing.assert_close(ours, walk(made, denoiser, start), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("steps", [STEPS, 1000])
def test_ddpm(mixture, start, steps):
    """Equal noise: both draw from generators of one seed, one array a step.

    Below 1000 steps diffusers ends with noise of 1e-10, its least standard deviation, where ours ends with none.
    """
    made = scheduler("DDPMScheduler", clip_sample=False, timestep_spacing="trailing", variance_type="fixed_small")
    made.set_timesteps(steps)
    denoiser = mixture.denoiser(CHAIN)
    draws = [torch.Generator().manual_seed(1) for _ in range(2)]
    ours = sample(denoiser, start, time_grid(CHAIN, steps, "ddpm"), "ancestral", generator=draws[0], record=True).states
    torch.testing.assert_close(ours, walk(made, denoiser, start, repeat({"generator": draws[1]})), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [8, STEPS])
def test_dpmpp2m(mixture, start, steps):
    """diffusers rounds the state to float32 in every step, which sets the tolerance."""
    made = scheduler("DPMSolverMultistepScheduler", algorithm_type="dpmsolver++", timestep_spacing="trailing")
    made.set_timesteps(steps)
    denoiser = mixture.denoiser(CHAIN)
    ours = sample(denoiser, start, time_grid(CHAIN, steps, "ddpm"), "dpmpp2m", record=True).states
    torch.testing.assert_close(ours, walk(made, denoiser, start), rtol=0, atol=5e-6)


def test_sde_dpmpp2m(mixture, start):
    made = scheduler("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", timestep_spacing="trailing")
    made.set_timesteps(STEPS)
    denoiser, draws = mixture.denoiser(CHAIN), [torch.Generator().manual_seed(1) for _ in range(2)]
    ours = sample(
        denoiser, start, time_grid(CHAIN, STEPS, "ddpm"), "sde_dpmpp2m", generator=draws[0], record=True
    ).states
    noise = ({"variance_noise": torch.randn(start.shape, dtype=start.dtype, generator=draws[1])} for _ in range(STEPS))
    torch.testing.assert_close(ours, walk(made, denoiser, start, noise), rtol=0, atol=5e-6)


def test_euler_on_the_rectified_flow_is_flow_matching_euler(mixture, start):
    import diffusers

    made, process = diffusers.FlowMatchEulerDiscreteScheduler(), RectifiedFlow()
    made.set_timesteps(sigmas=[40 / 41 * (1 - i / STEPS) for i in range(STEPS)])
    denoiser, x = mixture.denoiser(process), start
    ours = sample(denoiser, start, made.sigmas.double(), "euler", record=True).states
    states = [x]
    for t, sigma in zip(made.timesteps, made.sigmas.double(), strict=False):
        x = made.step(denoiser.velocity(x, sigma), t, x).prev_sample
        states.append(x)
    torch.testing.assert_close(ours, torch.stack(states), rtol=0, atol=5e-6)
