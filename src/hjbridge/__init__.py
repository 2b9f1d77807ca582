"""hjbridge: control, diffusion and the Hamilton-Jacobi-Bellman equation between them.

Nothing is imported here, so that the command line answers at once: take what you need from `hjbridge.sde`,
`hjbridge.score`, `hjbridge.hjb`, `hjbridge.data`, `hjbridge.metrics`, `hjbridge.training`, `hjbridge.plotting` and
`hjbridge.ledger`.
"""

__version__ = "0.1.0"
