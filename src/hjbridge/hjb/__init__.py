"""Control problems, their HJB equation, and methods that solve it. Imports `hjbridge.sde` and `hjbridge.score` only."""

from hjbridge.hjb import problems
from hjbridge.hjb.certificate import Certificate
from hjbridge.hjb.certify import certify
from hjbridge.hjb.defect import defect_increments, path_defect
from hjbridge.hjb.first_exit import FirstExit
from hjbridge.hjb.grid import Grid
from hjbridge.hjb.hopf_cole import HopfCole, HopfColeEstimate, hopf_cole_estimate, temperature
from hjbridge.hjb.path_integral import PathIntegral
from hjbridge.hjb.policy_iteration import PolicyIteration
from hjbridge.hjb.problem import ControlProblem, LinearQuadratic
from hjbridge.hjb.realised import compare, excess_percent, gain_loss, model_losses, realised_cost
from hjbridge.hjb.residual import SignTest, Terms, hjb_residual, sign_test
from hjbridge.hjb.riccati import Riccati
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
