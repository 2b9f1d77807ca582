"""Denoisers: networks, losses, time grids, sampling rules and checkpoints."""

from hjbridge.score.bound import bound_by_definition, bound_gap, noise_weights, prior_kl, variational_bound
from hjbridge.score.checkpoint import load
from hjbridge.score.denoiser import Denoiser, NoisePredictor
from hjbridge.score.empirical import EmpiricalDenoiser
from hjbridge.score.grid import time_grid
from hjbridge.score.loss import denoising_loss, loss_weight, noise_levels
from hjbridge.score.mlp import ResidualMLP
from hjbridge.score.published import load_published
from hjbridge.score.rules import ancestral, ddim, dpmpp2m, euler, heun, sde_dpmpp2m
from hjbridge.score.sample import sample
from hjbridge.score.unet import UNet

__all__ = [
    "Denoiser",
    "EmpiricalDenoiser",
    "NoisePredictor",
    "ResidualMLP",
    "UNet",
    "ancestral",
    "bound_by_definition",
    "bound_gap",
    "ddim",
    "denoising_loss",
    "dpmpp2m",
    "euler",
    "heun",
    "load",
    "load_published",
    "loss_weight",
    "noise_levels",
    "noise_weights",
    "prior_kl",
    "sample",
    "sde_dpmpp2m",
    "time_grid",
    "variational_bound",
]
