"""Forward processes, exact mixtures, and the equations between data and noise. Imports nothing else of hjbridge."""

from hjbridge.sde.equation import SDE, forward, reverse
from hjbridge.sde.integrate import Path, integrate
from hjbridge.sde.mixture import GaussianMixture
from hjbridge.sde.posterior import PosteriorMean
from hjbridge.sde.process import Process
from hjbridge.sde.processes import DDPM, EDM, VE, VP, Cosine, RectifiedFlow, SubVP

__all__ = [
    "DDPM",
    "EDM",
    "SDE",
    "VE",
    "VP",
    "Cosine",
    "GaussianMixture",
    "Path",
    "PosteriorMean",
    "Process",
    "RectifiedFlow",
    "SubVP",
    "forward",
    "integrate",
    "reverse",
]
