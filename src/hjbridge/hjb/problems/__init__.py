"""Problems with their exact solutions where known. State, order of controls and units stand in each docstring."""

from hjbridge.hjb.problems import known
from hjbridge.hjb.problems.binomial import binomial_put
from hjbridge.hjb.problems.circle import circle
from hjbridge.hjb.problems.double_well import double_well
from hjbridge.hjb.problems.han_jentzen_e import han_jentzen_e
from hjbridge.hjb.problems.linear import lqg, random_lqg, stationary_lqr
from hjbridge.hjb.problems.mdp import linearly_solvable_mdp, random_mdp
from hjbridge.hjb.problems.merton import merton
from hjbridge.hjb.problems.moon_landing import Landing, moon_landing, soft_landing
from hjbridge.hjb.problems.options import american_put, butterfly, european_option, uncertain_volatility
from hjbridge.hjb.problems.pendulum import pendulum

__all__ = [
    "american_put",
    "binomial_put",
    "butterfly",
    "circle",
    "double_well",
    "european_option",
    "han_jentzen_e",
    "known",
    "Landing",
    "linearly_solvable_mdp",
    "lqg",
    "merton",
    "moon_landing",
    "pendulum",
    "random_lqg",
    "random_mdp",
    "soft_landing",
    "stationary_lqr",
    "uncertain_volatility",
]
