"""What a DDIM step costs beside the network: `hjbridge.score.sample` against diffusers' DDIMScheduler."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from paired import Outcome, Row, interleaved, ratios

from hjbridge.score import sample, time_grid
from hjbridge.sde import DDPM

SHAPE, STEPS, LOOPS = (64, 1, 28, 28), 50, 10


class Constant:
    """A denoiser that costs nothing."""

    process = DDPM.linear()

    def __init__(self, image: torch.Tensor) -> None:
        self.image = image

    def __call__(self, x, t, label=None):
        return self.image


def run(quick: bool) -> Outcome:
    generator = torch.Generator().manual_seed(0)
    start, image = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    denoiser = Constant(image)
    scheduler = DDIMScheduler(prediction_type="sample", clip_sample=False, timestep_spacing="trailing")

    def ours():
        return sample(denoiser, start, time_grid(denoiser.process, STEPS, "ddpm"), "ddim")

    def peer():
        scheduler.set_timesteps(STEPS)
        x = start
        for k in scheduler.timesteps:
            x = scheduler.step(image, k, x).prev_sample
        return x

    torch.testing.assert_close(ours(), peer(), rtol=1e-4, atol=1e-4)
    mine, theirs = interleaved([lambda f=f: [f() for _ in range(LOOPS)] for f in (ours, peer)], 3 if quick else 15)
    return Outcome(
        f"batch {' x '.join(map(str, SHAPE))}, {STEPS} steps, float32, {LOOPS} loops a repetition, a network that "
        "costs nothing; grid, checks and set_timesteps included; the loop of diffusers' documentation",
        (Row("DDIM step overhead: ours / diffusers", ratios(mine, theirs), "<=", 0.5),),
    )
