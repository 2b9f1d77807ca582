"""Small classifiers whose 64 penultimate activations are the features of every image metric: network and training."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hjbridge.metrics.moments import Moments

FEATURES = 64


@dataclass(frozen=True)
class ClassifierRecipe:
    """How a classifier is made: AdamW with a one-cycle rate on all training images, a part of them shifted at random.

    Args:
        side: pixels per side.
        strides: of the three 3x3 convolutions with 16, 32 and 64 channels.
        mean, std: of the pixels of the training images, in [0, 1] units.
        epochs, batch, rate, decay: length, images a step, peak learning rate, weight decay.
        shift: largest random translation in pixels, of half of each batch.
    """

    side: int
    strides: tuple[int, int, int]
    mean: float
    std: float
    epochs: int
    batch: int
    rate: float
    decay: float
    shift: int


CLASSIFIERS = {
    "digits": ClassifierRecipe(8, (1, 2, 2), 0.3056, 0.3756, epochs=80, batch=64, rate=2e-3, decay=0.7, shift=1),
    "mnist": ClassifierRecipe(28, (2, 2, 2), 0.1307, 0.3081, epochs=12, batch=128, rate=2e-3, decay=0.3, shift=1),
    "fashion-mnist": ClassifierRecipe(
        28, (2, 2, 2), 0.2860, 0.3530, epochs=8, batch=128, rate=4e-3, decay=0.3, shift=1
    ),
}


class Classifier(nn.Module):
    """Convolutions with 16, 32 and 64 channels, a linear layer to 64 features, another to the labels; ReLU between.

    Args:
        recipe: sizes and standardisation.
        classes: number of labels.

    Attributes: `reference` are the moments of the features of the training images, `header` tells where it comes from.
    """

    reference: Moments
    header: dict[str, Any]

    def __init__(self, recipe: ClassifierRecipe, classes: int = 10) -> None:
        super().__init__()
        self.recipe, side = recipe, recipe.side
        layers: list[nn.Module] = []
        for inputs, outputs, stride in zip((1, 16, 32), (16, 32, 64), recipe.strides, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU()]
            side = (side - 1) // stride + 1
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * side**2, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, classes)

    def features(self, pixels: Tensor) -> Tensor:
        """Features (n, 64) of pixels (n, 1, side, side) in [0, 1]."""
        return self.body((pixels - self.recipe.mean) / self.recipe.std)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (n, classes) of pixels (n, 1, side, side) in [0, 1]."""
        return self.head(self.features(pixels))


def shifted(pixels: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """Pixels (n, 1, h, w), each moved by up to `largest` pixels along both axes; what comes in is black."""
    n, _, h, w = pixels.shape
    padded = F.pad(pixels, [largest] * 4)[:, 0]
    down, right = torch.randint(0, 2 * largest + 1, (2, n, 1), generator=generator)
    rows, columns = down + torch.arange(h), right + torch.arange(w)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def train_classifier(recipe: ClassifierRecipe, pixels: Tensor, labels: Tensor, seed: int) -> tuple[Classifier, float]:
    """Train one classifier by minimising the cross-entropy.

    Args:
        recipe: what to do.
        pixels: training images (n, 1, side, side) in [0, 1].
        labels: int64 (n,), from 0 on.
        seed: of weights, order and shifts.

    Returns:
        The classifier, and the CPU seconds it took.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    start, generator = time.process_time(), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(recipe, int(labels.max()) + 1)
    batches = len(pixels) // recipe.batch
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.epochs * batches, pct_start=0.2
    )
    for _ in range(recipe.epochs):
        order = torch.randperm(len(pixels), generator=generator)[: batches * recipe.batch]
        for index in order.split(recipe.batch):
            x, half = pixels[index], recipe.batch // 2
            x = torch.cat([shifted(x[:half], recipe.shift, generator), x[half:]])
            loss = F.cross_entropy(model(x), labels[index])
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"loss must be finite, got {loss.item()}: lower rate = {recipe.rate}")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval().requires_grad_(False), time.process_time() - start
