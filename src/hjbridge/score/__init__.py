"""Denoisers: networks, losses, time grids, sampling rules, likelihoods, checkpoints; `guidance` by what one sees."""

from hjbridge.score.bound import bound_by_definition, bound_gap, noise_weights, prior_kl, variational_bound
from hjbridge.score.checkpoint import load
from hjbridge.score.continuous import ContinuousNoisePredictor
from hjbridge.score.denoiser import Denoiser, NoisePredictor
from hjbridge.score.empirical import EmpiricalDenoiser
from hjbridge.score.encode import decode, encode, flow_grid
from hjbridge.score.grid import time_grid
from hjbridge.score.likelihood import log_likelihood
from hjbridge.score.likelihood_bound import likelihood_bound
from hjbridge.score.loss import denoising_loss, loss_weight, noise_levels, uniform_times
from hjbridge.score.matching import score_matching
from hjbridge.score.mlp import ResidualMLP
from hjbridge.score.ncsnpp import NCSNpp
from hjbridge.score.pixels import dequantise, quantise
from hjbridge.score.predictor_corrector import predictor_corrector
from hjbridge.score.published import load_published
from hjbridge.score.rules import ancestral, ddim, denoised, dpmpp2m, euler, heun, reverse_diffusion, sde_dpmpp2m
from hjbridge.score.sample import sample
from hjbridge.score.unet import UNet

__all__ = [
    "ContinuousNoisePredictor",
    "Denoiser",
    "EmpiricalDenoiser",
    "NCSNpp",
    "NoisePredictor",
    "ResidualMLP",
    "UNet",
    "ancestral",
    "bound_by_definition",
    "bound_gap",
    "ddim",
    "denoised",
    "decode",
    "denoising_loss",
    "dequantise",
    "dpmpp2m",
    "encode",
    "euler",
    "flow_grid",
    "heun",
    "likelihood_bound",
    "load",
    "load_published",
    "log_likelihood",
    "loss_weight",
    "noise_levels",
    "noise_weights",
    "prior_kl",
    "predictor_corrector",
    "quantise",
    "reverse_diffusion",
    "sample",
    "sde_dpmpp2m",
    "score_matching",
    "time_grid",
    "uniform_times",
    "variational_bound",
]
