"""The recipes of the committed checkpoints, and the published one. A checkpoint's header holds its own copy."""

from __future__ import annotations

import dataclasses

from hjbridge.train import Recipe

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
