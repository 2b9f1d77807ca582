"""Methods for `solve(problem, method)`, one a file, and the two estimates by sampling that need no `solve`.

Closed forms: `Riccati`. Lattices: `Grid`, `PolicyIteration`, `FirstExit`, made of `hjbridge.hjb.schemes`. The linear
equation behind some problems: `HopfCole`, `PathIntegral` and `hopf_cole_estimate`. The other files hold what these
share. A method imports no problem, so that every problem may be solved by any of them.
"""

from hjbridge.hjb.methods.first_exit import FirstExit
from hjbridge.hjb.methods.grid import Grid
from hjbridge.hjb.methods.hopf_cole import HopfCole, HopfColeEstimate, hopf_cole_estimate
from hjbridge.hjb.methods.path_integral import PathIntegral
from hjbridge.hjb.methods.policy_iteration import PolicyIteration
from hjbridge.hjb.methods.riccati import Riccati
from hjbridge.hjb.methods.temperature import temperature

__all__ = [
    "FirstExit",
    "Grid",
    "HopfCole",
    "HopfColeEstimate",
    "PathIntegral",
    "PolicyIteration",
    "Riccati",
    "hopf_cole_estimate",
    "temperature",
]
