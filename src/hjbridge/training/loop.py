"""One plain training loop: seeded, resumable at any moment, written as safetensors with its recipe."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from tqdm.auto import tqdm

from hjbridge import data as datasets
from hjbridge.data.images import Images
from hjbridge.ledger.freshness import modules_hash
from hjbridge.score.checkpoint import build, read, write
from hjbridge.score.loss import denoising_loss, noise_levels, uniform_times
from hjbridge.score.pixels import grey_index
from hjbridge.training.recipes import NETWORKS, Recipe

#: modules that decide what every training run computes
MODULES = (
    "hjbridge.data.formats",
    "hjbridge.data.images",
    "hjbridge.sde.process",
    "hjbridge.sde.processes",
    "hjbridge.sde.posterior",
    "hjbridge.score.checkpoint",
    "hjbridge.score.denoiser",
    "hjbridge.score.embedding",
    "hjbridge.score.loss",
    "hjbridge.score.pixels",
    "hjbridge.training.loop",
)


def modules(recipe: Recipe) -> tuple[str, ...]:
    """Modules that decide what a recipe's run computes; their hash is stored in its checkpoint."""
    return (*MODULES, *NETWORKS[recipe.network])


def learning_rate(recipe: Recipe, step: int) -> float:
    """Rate at a step counted from 0: linear warm-up, then rate (1 + cos(pi x)) / 2 over the rest if `decay`."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    if not recipe.decay:
        return recipe.rate
    progress = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (1 + math.cos(math.pi * progress)) / 2


def batch_loss(recipe: Recipe, denoiser: Any, images: Tensor, labels: Tensor, step: int) -> Tensor:
    """Loss of one step; images, noise levels and noise depend only on the seed and the step, so a run can resume."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    index = torch.randint(len(images), (recipe.batch,), generator=generator)
    x0, label = images[index], labels[index] if recipe.conditional else None
    if recipe.flip:
        mirror = torch.rand(len(x0), generator=generator) < 0.5
        x0 = torch.where(mirror[:, None, None, None], x0.flip(-1), x0)
    device = next(denoiser.parameters()).device
    x0, label = x0.to(device), None if label is None else label.to(device)
    if recipe.grey_levels:
        # (k + u) / levels, on the scale of the data
        bins = recipe.grey_levels * denoiser.pixel_std
        x0 = x0 + torch.rand(x0.shape, generator=generator).to(device) / bins
    if recipe.prediction != "noise":
        if recipe.times == "uniform":
            t = uniform_times(denoiser.process, len(x0), generator=generator)
        else:
            mean, std = recipe.levels
            t = noise_levels(denoiser.process, len(x0), mean=mean, std=std, generator=generator)
        return denoising_loss(
            denoiser, x0, label, t=t, weighting=recipe.weighting, label_drop=recipe.label_drop, generator=generator
        )
    # L_simple: k uniform on 1..N, unit weight on the noise (Ho et al. 2020, eq. 14)
    k = torch.randint(1, denoiser.steps + 1, (len(x0),), generator=generator)
    t = k.double() / denoiser.steps
    return denoising_loss(denoiser, x0, label, t=t, weighting="eps", label_drop=recipe.label_drop, generator=generator)


def train(
    recipe: Recipe,
    data: Images | None = None,
    *,
    out: Path | str,
    device: str = "cpu",
    save_every: int = 100,
    stop_after: int | None = None,
    progress: bool = True,
) -> Path:
    """Train by a recipe and write `out`; an interrupted run goes on from `out` + ".state" to identical weights.

    Args:
        recipe: what to run. data: `hjbridge.data.Images`; None loads the data set that the recipe names.
        out: path of the checkpoint. device: where to train. save_every: steps between saved states.
        stop_after: stop at this step without finishing (the state is saved). progress: show a bar.
    Returns: the path of the checkpoint (of the state if stopped early).
    Raises: ValueError if the state belongs to another recipe or to other code, save_every or stop_after is not
        positive, or all pixels are equal; FloatingPointError if the loss is not finite.
    """
    if save_every < 1 or (stop_after is not None and stop_after < 1):
        raise ValueError(f"save_every and stop_after must be at least 1, got {save_every} and {stop_after}")
    source = modules_hash(modules(recipe))
    out, state_path = Path(out), Path(f"{out}.state")
    data = data if data is not None else datasets.load(recipe.data, "train", full=recipe.full)
    pixels, labels = data.pixels(), torch.as_tensor(data.labels)
    if recipe.grey_levels:
        # the lower ends of the bins [k, k + 1) / levels
        pixels = grey_index(pixels, recipe.grey_levels) / recipe.grey_levels
    mean, std = pixels.double().mean().item(), pixels.double().std().item()
    if not std > 0:
        raise ValueError(f"data must hold more than one grey level, got {mean:g} in every pixel")
    if recipe.grey_levels:
        # u / levels has mean 1/2 and variance 1/12 in units of levels
        mean, std = mean + 0.5 / recipe.grey_levels, math.hypot(std, 12**-0.5 / recipe.grey_levels)
    if recipe.prediction in ("noise", "continuous"):
        # data in [-1, 1]; in [0, 1] for VE, as published
        mean, std = (0.0, 1.0) if recipe.process == "ve" else (0.5, 0.5)
    spec: dict[str, Any] = {
        "network": recipe.network, "settings": dict(recipe.settings), "prediction": recipe.prediction,
        "shape": list(pixels.shape[1:]), "classes": int(labels.max()) + 1 if recipe.conditional else 0,
        "pixel_mean": mean, "pixel_std": std, "process": recipe.process, "grey_levels": recipe.grey_levels,
    }  # fmt: skip
    images = (pixels - spec["pixel_mean"]) / spec["pixel_std"]
    description = {"recipe": dataclasses.asdict(recipe), "spec": spec, "images": len(images)}
    forked = [torch.device(device)] if torch.device(device).type == "cuda" else []

    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(recipe.seed)
        denoiser = build(spec).to(device)
    weights = [p for p in denoiser.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in weights]
    optimiser = torch.optim.AdamW(
        weights, lr=recipe.rate, betas=recipe.betas, weight_decay=recipe.weight_decay, foreach=True
    )
    step, seconds = 0, 0.0
    losses: list[float] = []
    if state_path.is_file():
        step, seconds, losses = restore(state_path, description, source, weights, average, optimiser)
        if stop_after is not None and step >= stop_after:
            return state_path

    denoiser.train()
    start, before = time.process_time(), seconds
    with tqdm(total=recipe.steps, initial=step, desc=out.stem, disable=not progress, mininterval=2.0) as bar:
        while step < recipe.steps:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step)
            with torch.random.fork_rng(devices=forked):
                torch.manual_seed(recipe.seed * 1_000_003 + step)  # dropout
                loss = batch_loss(recipe, denoiser, images, labels, step)
            if not math.isfinite(value := loss.item()):
                raise FloatingPointError(f"loss is {value} at step {step}: lower recipe.rate = {recipe.rate}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if not bool(torch.nn.utils.clip_grad_norm_(weights, recipe.clip).isfinite()):
                raise FloatingPointError(f"gradient is not finite at step {step}: lower recipe.rate = {recipe.rate}")
            optimiser.step()
            # the average forgets its start: decay = min(ema, (1 + k) / (10 + k))
            decay = min(recipe.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - decay)
            step += 1
            losses.append(round(value, 6))
            seconds = before + time.process_time() - start
            bar.update()
            bar.set_postfix(loss=f"{sum(losses[-100:]) / len(losses[-100:]):.4f}", refresh=False)
            if step % save_every == 0 or step == stop_after:
                save(state_path, description, weights, average, optimiser, step, seconds, losses, source)
            if step == stop_after:
                return state_path

    for parameter, value_ in zip(weights, average, strict=True):
        parameter.data.copy_(value_)
    header = description | {
        "seconds": round(seconds, 1), "loss": sum(losses[-200:]) / len(losses[-200:]), "hash": source,
        "modules": list(modules(recipe)), "torch": torch.__version__.split("+")[0],
    }  # fmt: skip
    tensors = {k: v.to("cpu", getattr(torch, recipe.storage)) for k, v in denoiser.state_dict().items()}
    write(tensors, header, out)
    state_path.unlink(missing_ok=True)
    return out


def save(
    path: Path,
    description: dict[str, Any],
    weights: list[Parameter],
    average: list[Tensor],
    optimiser: Optimizer,
    step: int,
    seconds: float,
    losses: list[float],
    source: str,
) -> None:
    """Write the whole state of a run atomically; `source` is the hash of the code that made it."""
    tensors = {f"weight.{i}": w for i, w in enumerate(weights)} | {f"average.{i}": a for i, a in enumerate(average)}
    for i, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{key}": value for key, value in entry.items()}
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    write(tensors, {"description": description, "step": step, "seconds": seconds, "hash": source}, path)


def restore(
    path: Path,
    description: dict[str, Any],
    source: str,
    weights: list[Parameter],
    average: list[Tensor],
    optimiser: Optimizer,
) -> tuple[int, float, list[float]]:
    """Load the state of a run; raises ValueError if another recipe or other code made it, or it is damaged."""
    tensors, header = read(path, f"delete {path.name} to start again")
    if header["description"] != json.loads(json.dumps(description)):
        raise ValueError(f"{path} belongs to another recipe: delete it to start again, or restore that recipe")
    if (made := header.get("hash")) != source:
        raise ValueError(
            f"{path} was made by other code, of hash {str(made)[:8]} where now it is {source[:8]}: "
            "delete it to start again, or restore that code"
        )
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "weight":
            weights[int(rest)].data.copy_(value)
        elif kind == "average":
            average[int(rest)].copy_(value)
        elif kind == "optimiser":
            i, _, key = rest.partition(".")
            state.setdefault(int(i), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    return header["step"], header["seconds"], tensors["losses"].tolist()
