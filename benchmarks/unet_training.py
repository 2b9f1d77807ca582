"""The patch-stem U-Net of our image recipes against diffusers' UNet2DModel of equal size: cost of a step, quality."""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
import time

import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from paired import Outcome, Row, interleaved, ratios
from torch import Tensor, nn

from hjbridge import data
from hjbridge.metrics import Classifier, classifier, features, frechet_distance
from hjbridge.score import Denoiser, UNet
from hjbridge.score.unet import zero_outputs
from hjbridge.sde import VP
from hjbridge.training.evaluate import JUDGES, draw, proportional_labels
from hjbridge.training.loop import batch_loss
from hjbridge.training.recipes import RECIPES

RECIPE = dataclasses.replace(RECIPES["mnist"], full=False)  # the subset that the repository holds
CLASSES, SEEDS, WARMUP = 10, (0, 1, 2), 0.05
RULE, EVALUATIONS = "dpmpp2m", 10


class Peer(nn.Module):
    """UNet2DModel as our denoisers call a network; the same channels, levels, blocks, groups and scales, no patch stem.

    heads None: one head of attention, as in ours; 8 (channels per head): the default of the class.
    """

    def __init__(self, heads: int | None) -> None:
        super().__init__()
        channels, multipliers = RECIPE.settings["channels"], RECIPE.settings["multipliers"]
        self.network = UNet2DModel(
            sample_size=28, in_channels=1, out_channels=1, num_class_embeds=CLASSES + 1,
            block_out_channels=tuple(channels * m for m in multipliers), layers_per_block=RECIPE.settings["blocks"],
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=RECIPE.settings["groups"], attention_head_dim=heads, resnet_time_scale_shift="scale_shift",
        )  # fmt: skip
        # every residual branch and the output start at zero, as `zero_outputs` does for ours
        last = [m.conv2 for m in self.network.modules() if isinstance(m, ResnetBlock2D)]
        last += [m.to_out[0] for m in self.network.modules() if isinstance(m, Attention)]
        for layer in (*last, self.network.conv_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, level: Tensor, label: Tensor) -> Tensor:
        return self.network(x, RECIPE.settings["level_scale"] * level, label).sample


def networks() -> dict[str, nn.Module]:
    """Our network and the two peers, untrained, with parameter counts that agree within 1 %."""
    torch.manual_seed(0)
    made = {
        "ours": zero_outputs(UNet(28, 1, classes=CLASSES, **RECIPE.settings)),
        "default": Peer(8),
        "one": Peer(None),
    }
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in made.items()}
    if max(counts.values()) > 1.01 * min(counts.values()):
        raise RuntimeError(f"parameter counts must agree within 1 %, got {counts}")
    return made


class Training:
    """The recipe's training of one network, step by step: same loss, images, noise and optimiser for all."""

    def __init__(self, network: nn.Module) -> None:
        images = data.load(RECIPE.data, "train")
        pixels = images.pixels()
        mean, std = pixels.double().mean().item(), pixels.double().std().item()
        self.denoiser = Denoiser(
            network, VP(), shape=(1, 28, 28), pixel_mean=mean, pixel_std=std, classes=CLASSES
        ).train()
        self.images, self.labels = (pixels - mean) / std, torch.as_tensor(images.labels)
        self.weights = list(network.parameters())
        self.average = [w.detach().clone() for w in self.weights]
        self.optimiser = torch.optim.AdamW(
            self.weights, RECIPE.rate, RECIPE.betas, weight_decay=RECIPE.weight_decay, foreach=True
        )
        self.steps = 0

    def step(self, rate: float = RECIPE.rate) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        batch_loss(RECIPE, self.denoiser, self.images, self.labels, self.steps).backward()
        nn.utils.clip_grad_norm_(self.weights, RECIPE.clip)
        self.optimiser.step()
        decay = min(RECIPE.ema, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.average, [w.detach() for w in self.weights], 1 - decay)
        self.steps += 1

    def spend(self, budget: float) -> Denoiser:
        """Train for a budget of CPU seconds, over which the rate warms up and falls to zero; keep the average."""
        start = time.process_time()
        while (spent := (time.process_time() - start) / budget) < 1:
            self.step(RECIPE.rate * min(1, (spent + 1e-3) / WARMUP) * (1 + math.cos(math.pi * spent)) / 2)
        for weight, average in zip(self.weights, self.average, strict=True):
            weight.data.copy_(average)
        return self.denoiser.eval().requires_grad_(False)


def distances(denoiser: Denoiser, n: int, judges: list[Classifier]) -> list[float]:
    """Frechet distance of n samples to the training set, mean over the classifiers, for each sampling seed."""
    labels = proportional_labels(torch.as_tensor(data.load(RECIPE.data, "train").labels), n)
    found = []
    for seed in SEEDS:
        pixels = draw(denoiser, labels, RULE, EVALUATIONS, seed=seed)
        found.append(statistics.fmean(frechet_distance(features(c, pixels), c.reference) for c in judges))
    return found


def run(quick: bool) -> Outcome:
    budget, n = (6.0, 60) if quick else (60.0, 300)
    judges = [classifier(RECIPE.data, seed) for seed in JUDGES]
    made = {name: Training(network) for name, network in networks().items()}
    mine, default, one = interleaved([made[name].step for name in ("ours", "default", "one")], 2 if quick else 5)

    found, steps = {}, {}
    for name, network in networks().items():
        if name != "default":
            training = Training(network)
            print(f"  training {name} for {budget:g} CPU s", file=sys.stderr)
            denoiser = training.spend(budget)
            print(f"  sampling {len(SEEDS)} x {n} images", file=sys.stderr)
            steps[name], found[name] = training.steps, distances(denoiser, n, judges)
    told = {name: f"{statistics.fmean(v):.1f} ± {statistics.stdev(v):.1f}" for name, v in found.items()}
    one_head = statistics.median(ratios(mine, one))
    return Outcome(
        f"batch {RECIPE.batch} x 1x28x28, forward, backward, clipping, AdamW and average; same channels, levels, "
        "blocks and parameter count (within 1 %). Fréchet distance: both trained from one seed on the embedded MNIST "
        f"subset for {budget:g} CPU s, the rate falling to zero over them; {n} samples, {RULE} with {EVALUATIONS} "
        f"evaluations, mean of {len(JUDGES)} classifiers, seeds {', '.join(map(str, SEEDS))}; the peer is the faster "
        "one, with one head",
        (
            Row("U-Net training step: ours / UNet2DModel", ratios(mine, default), "<=", 0.25),
            Row(
                "Fréchet distance at equal CPU: ours / UNet2DModel",
                ratios(found["ours"], found["one"]),
                "<=",
                1,
                "worst",
            ),
        ),
        (
            f"a step against UNet2DModel with one head of attention in place of its default: {one_head:.3g} (median)",
            f"Fréchet distance {told['ours']} after {steps['ours']} steps, UNet2DModel {told['one']} after "
            f"{steps['one']} (mean ± sd over sampling seeds)",
        ),
    )
