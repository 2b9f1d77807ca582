"""A training run that is looked at on its way."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hjbridge.data.images import Images
from hjbridge.training.evaluate import unfinished
from hjbridge.training.loop import Recipe, train
from hjbridge.training.recipes import RECIPES


def watch(recipe: str | Recipe, stops: Sequence[int], *, seed: int = 0, data: Images | None = None) -> Iterator[Any]:
    """Train by a recipe for as many steps as the last stop and show the denoiser at every stop.

    Args: recipe, or the name of one in `hjbridge.training.RECIPES`; stops in steps, ascending; seed of the training;
        data, None for the data set that the recipe names. Nothing is left on disk.
    Yields: the denoiser with its averaged weights; its `.header` has the `step` and the CPU `seconds` so far.
    Raises: ValueError, at the first step, for an unknown name or stops that are not positive and ascending.
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
        recipe = RECIPES[recipe]
    if not stops or list(stops) != sorted(set(stops)) or stops[0] < 1:
        raise ValueError(f"stops must be positive and ascending, got {list(stops)}")
    planned = dataclasses.replace(recipe, seed=seed, steps=stops[-1])
    with tempfile.TemporaryDirectory() as folder:
        for step in stops:
            out = Path(folder) / "watched.safetensors"
            yield unfinished(train(planned, data, out=out, stop_after=step, progress=False))
