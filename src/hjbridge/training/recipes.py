"""What a training run is told, and the recipes of the committed checkpoints, whose headers hold their own copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: networks, with the modules that decide what they compute
NETWORKS = {
    "mlp": ("hjbridge.score.mlp",),
    "unet": ("hjbridge.score.unet",),
    "ncsnpp": ("hjbridge.score.ncsnpp", "hjbridge.score.resample", "hjbridge.score.unet", "hjbridge.score.continuous"),
}


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
        levels: mean and standard deviation of log(sigma/alpha) in training, see `noise_levels`.
        storage: type of the weights on disk.
        process: forward process, a name in `hjbridge.score.checkpoint.PROCESSES`.
        weighting: of the loss, see `hjbridge.score.loss_weight`.
        times: "levels" draws the noise by `levels`, "uniform" by equal chances for all times, see `uniform_times`.
        grey_levels: number of grey values of the data, whose pixels are dequantised anew in each step; 0: not at all.

    The last four, like `levels`, are not for the prediction "noise", which has the loss of DDPM.
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
    process: str = "vp"
    weighting: str = "edm"
    times: str = "levels"
    grey_levels: int = 0

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {self.network!r}")
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
        if self.times not in ("levels", "uniform"):
            raise ValueError(f"times must be levels or uniform, got {self.times!r}")
        told = (self.process, self.weighting, self.times, self.grey_levels)
        if self.prediction == "noise" and told != ("vp", "edm", "levels", 0):
            raise ValueError(f"process, weighting, times and grey_levels must be left alone with noise, got {told}")
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
#: Song et al. 2021: t uniform, their weight, no bell of levels; the pixels are dequantised, so that a density exists
DIGITS_SDE = dataclasses.replace(
    DIGITS, settings={"width": 192, "blocks": 3}, steps=4_000, weighting="eps", times="uniform", grey_levels=17
)
IMAGES_SDE = dataclasses.replace(IMAGES, steps=6_000, weighting="eps", times="uniform", grey_levels=256)

#: DDPM++ and NCSN++ with continuous times (Song et al. 2021, and the configurations of their program); made for a GPU.
#: The published loss of VE is half a sum over 3072 coordinates, ours a mean: hence its bound of the gradient
DDPMPP = Recipe(
    "cifar10", full=True, network="ncsnpp", settings={"blocks": 4, "dropout": 0.1}, prediction="continuous",
    conditional=False, steps=1_300_001, rate=2e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup=5000, decay=False,
    ema=0.9999, label_drop=0.0, flip=True, weighting="eps", times="uniform",
)  # fmt: skip
NCSNPP = dataclasses.replace(
    DDPMPP, process="ve", ema=0.999, clip=1 / 1536,
    settings={"blocks": 4, "dropout": 0.1, "fir": True, "pyramid": True, "fourier": 16.0, "centred": False},
)  # fmt: skip
PAPER_SDE = {
    name + deep: dataclasses.replace(recipe, process=name, steps=steps, settings={**recipe.settings, "blocks": blocks})
    for name, recipe in (("vp", DDPMPP), ("subvp", DDPMPP), ("ve", NCSNPP))
    for deep, blocks, steps in (("", 4, 1_300_001), ("-deep", 8, 950_001))
}

RECIPES: dict[str, Recipe] = {
    "digits": DIGITS,
    "digits-1": dataclasses.replace(DIGITS, seed=1),
    "digits-2": dataclasses.replace(DIGITS, seed=2),
    "mnist": IMAGES,
    "fashion-mnist": dataclasses.replace(
        IMAGES, data="fashion-mnist", settings=PATCH_UNET | {"overview": 64}, steps=14_000, levels=(0.4, 1.4)
    ),
    **{
        f"digits-{process}{f'-{seed}' if seed else ''}": dataclasses.replace(DIGITS_SDE, process=process, seed=seed)
        for process in ("vp", "subvp", "ve") for seed in (0, 1, 2)
    },
    **{f"mnist-{process}": dataclasses.replace(IMAGES_SDE, process=process) for process in ("vp", "subvp", "ve")},
    # Ho et al. 2020, appendix B; made for a GPU
    "paper": Recipe(
        "cifar10", full=True, settings={"dropout": 0.1}, prediction="noise", conditional=False, steps=800_000,
        rate=2e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup=5000, decay=False, ema=0.9999, label_drop=0.0,
        flip=True,
    ),
    **{f"paper-{name}": recipe for name, recipe in PAPER_SDE.items()},
}  # fmt: skip
