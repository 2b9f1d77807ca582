"""What a solution is worth: closed-loop cost, residual and defect, and a judgement that follows from them.

`certify` simulates (`closed_loop`), measures (`measurements`, each number an `estimate` with its error) and judges
(`judge`); a `Certificate` holds what was found and draws itself (`draw`). `realised_cost` drives a control against
others and under a wrong model.
"""

from hjbridge.hjb.certificate.certificate import Certificate, Check
from hjbridge.hjb.certificate.certify import certify
from hjbridge.hjb.certificate.estimate import Estimate
from hjbridge.hjb.certificate.realised_cost import compare, excess_percent, gain_loss, model_losses, realised_cost

__all__ = [
    "Certificate",
    "Check",
    "Estimate",
    "certify",
    "compare",
    "excess_percent",
    "gain_loss",
    "model_losses",
    "realised_cost",
]
