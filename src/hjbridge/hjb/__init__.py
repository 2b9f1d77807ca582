"""Control problems, their HJB equation, and methods that solve it. Imports `hjbridge.sde` and `hjbridge.score` only.

Here lies what every method shares: `problem`, `solution`, `derivatives`, `residual`, `simulate`, `defect`, and `gym`,
the door to gymnasium. The rooms: `problems` to solve, `methods` that solve them, `schemes` that lattices are made of,
`discrete` for time in steps, and the `certificate` of what came out.
"""

from hjbridge.hjb import problems
from hjbridge.hjb.certificate import (
    Certificate,
    certify,
    compare,
    excess_percent,
    gain_loss,
    model_losses,
    realised_cost,
)
from hjbridge.hjb.defect import defect_increments, path_defect
from hjbridge.hjb.methods import (
    FirstExit,
    Grid,
    HopfCole,
    HopfColeEstimate,
    PathIntegral,
    PolicyIteration,
    Riccati,
    hopf_cole_estimate,
    temperature,
)
from hjbridge.hjb.problem import ControlProblem, LinearQuadratic
from hjbridge.hjb.residual import SignTest, Terms, hjb_residual, sign_test
from hjbridge.hjb.simulate import ControlledPath, simulate
from hjbridge.hjb.solution import Method, Solution, load, solve

__all__ = [
    "Certificate",
    "ControlProblem",
    "ControlledPath",
    "FirstExit",
    "Grid",
    "HopfCole",
    "HopfColeEstimate",
    "LinearQuadratic",
    "Method",
    "PathIntegral",
    "PolicyIteration",
    "Riccati",
    "SignTest",
    "Solution",
    "Terms",
    "certify",
    "compare",
    "defect_increments",
    "excess_percent",
    "gain_loss",
    "hjb_residual",
    "hopf_cole_estimate",
    "load",
    "model_losses",
    "path_defect",
    "problems",
    "realised_cost",
    "sign_test",
    "simulate",
    "solve",
    "temperature",
]
