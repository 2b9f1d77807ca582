"""The training loop, what it is told (`recipes`), and what became of it.

`train` makes a checkpoint and goes on where it was interrupted; `watch` looks at a run on its way; `evaluate` measures
checkpoints for hours and puts the numbers on record, `qualities` in seconds; `inventory` tells what is here and
unharmed.
"""

from hjbridge.training.evaluate import (
    FIFTY,
    Quality,
    draw,
    proportional_labels,
    quality,
    quality_of,
    real_quality,
    record_plans,
    unfinished,
)
from hjbridge.training.inventory import State, overview, verify
from hjbridge.training.loop import train
from hjbridge.training.qualities import Qualities, qualities
from hjbridge.training.recipes import RECIPES, Recipe
from hjbridge.training.watch import watch

__all__ = [
    "FIFTY",
    "RECIPES",
    "Qualities",
    "Quality",
    "Recipe",
    "State",
    "draw",
    "overview",
    "proportional_labels",
    "qualities",
    "quality",
    "quality_of",
    "real_quality",
    "record_plans",
    "train",
    "unfinished",
    "verify",
    "watch",
]
