"""What the tests of the training loop share: tiny recipes and shorthand."""

import dataclasses

import pytest
import torch

import hjbridge.training.loop
from hjbridge.cli import main
from hjbridge.score.checkpoint import read
from hjbridge.sde import VP
from hjbridge.training.loop import Recipe, train

MLP = Recipe("own", network="mlp", settings={"width": 16, "blocks": 1}, steps=12, batch=4, warmup=3, ema=0.9)
TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "groups": 4, "dropout": 0.3}
UNET = dataclasses.replace(MLP, network="unet", settings=TINY)
NOISE = dataclasses.replace(UNET, prediction="noise", conditional=False, label_drop=0.0, flip=True)


def weights(path):
    return read(path)[0]


def identical(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def run(recipe, data, out, **options):
    return train(recipe, data, out=out, progress=False, **options)


def call(*words):
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


class Seen:
    """Stands for `denoising_loss` and keeps its arguments."""

    def __init__(self, monkeypatch):
        self.calls = []
        monkeypatch.setattr(hjbridge.training.loop, "denoising_loss", self)

    def __call__(self, denoiser, x0, label=None, **options):
        self.calls.append((x0, label, options))
        return x0.sum()


class Nothing(torch.nn.Module):
    steps = 1000
    process = VP()

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.zeros(()))
