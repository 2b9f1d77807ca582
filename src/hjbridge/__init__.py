"""hjbridge: control, diffusion and the Hamilton-Jacobi-Bellman equation between them.

Nothing is imported here, so that the command line answers at once: take what you need from `hjbridge.sde`,
`hjbridge.score`, `hjbridge.data`, `hjbridge.metrics`, `hjbridge.train` and `hjbridge.ledger`.
"""

__version__ = "0.1.0"
