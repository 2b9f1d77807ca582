"""What a training run is told, and the recipes of the committed checkpoints, whose headers hold their own copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NETWORKS = {"mlp": "hjbridge.score.mlp", "unet": "hjbridge.score.unet"}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run. Two runs of one recipe give the same weights on one machine.

    Attributes:
        data: name of a data set of `hjbridge.data`; `full` asks for the downloaded set instead of the embedded one.
        network, settings, prediction: see `hjbridge.score.checkpoint.build`.
        steps, batch: optimiser steps and images per step.
        rate, betas, weight_decay: AdamW. warmup: steps of linear warm-up; then a cosine to zero if `decay`.
        clip: largest gradient norm. ema: decay of the averaged weights, which are the ones that are kept.
        label_drop: probability of hiding the label. flip: mirror images at random.
        levels: mean and standard deviation of log(sigma/alpha) in training, see `noise_levels`; with prediction "edm".
        storage: type of the weights on disk.
    """

    data: str
    full: bool = False
    network: str = "unet"
    settings: Mapping[str, Any] = field(default_factory=dict)
    prediction: str = "edm"
    conditional: bool = True
    steps: int = 2000
    batch: int = 128
    rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-3
    warmup: int = 40
    decay: bool = True
    clip: float = 1.0
    ema: float = 0.999
    label_drop: float = 0.1
    flip: bool = False
    levels: tuple[float, float] = (-0.4, 1.4)
    seed: int = 0
    storage: str = "float32"

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network must be 'unet' or 'mlp', got {self.network!r}")
        for name in ("steps", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, value in (("rate", self.rate), ("clip", self.clip), ("levels[1]", self.levels[1])):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, got {self.warmup}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema}")
        if self.storage not in ("float16", "float32"):
            raise ValueError(f"storage must be float16 or float32, got {self.storage!r}")


PATCH_UNET = {
    "channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (7,), "patch": 2, "groups": 8, "scale": True,
    "level_scale": 100.0,
}  # fmt: skip
DIGITS = Recipe("digits", network="mlp", settings={"width": 256, "blocks": 3}, batch=192, rate=3e-3, storage="float16")
IMAGES = Recipe(
    "mnist", full=True, settings=PATCH_UNET, steps=10_000, batch=64, warmup=200, ema=0.9995, levels=(0.2, 1.4),
    storage="float16",
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "digits": DIGITS,
    "digits-1": dataclasses.replace(DIGITS, seed=1),
    "digits-2": dataclasses.replace(DIGITS, seed=2),
    "mnist": IMAGES,
    "fashion-mnist": dataclasses.replace(
        IMAGES, data="fashion-mnist", settings=PATCH_UNET | {"overview": 64}, steps=14_000, levels=(0.4, 1.4)
    ),
    # Ho et al. 2020, appendix B; made for a GPU
    "paper": Recipe(
        "cifar10", full=True, settings={"dropout": 0.1}, prediction="noise", conditional=False, steps=800_000,
        rate=2e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup=5000, decay=False, ema=0.9999, label_drop=0.0,
        flip=True,
    ),
}  # fmt: skip
