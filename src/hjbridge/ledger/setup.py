"""The first line of every chapter: one thread, seeds, the style of figures, an open record."""

from __future__ import annotations

import os

from hjbridge.ledger import machine, session
from hjbridge.ledger.profile import Profile


def setup(
    seed: int, profile: str | Profile = "book", chapter: str | int | None = None, modules: tuple[str, ...] | None = None
) -> Profile:
    """Prepare a notebook's process, open its record and print the versions in use.

    One thread, deterministic kernels, seeded global generators, the book's style of figures.

    Args:
        seed: seed of the global generators of Python, numpy and torch.
        profile: name of the profile, or the profile itself.
        chapter: number of the chapter; None takes it from the first recorded id.
        modules: the modules that decide the results, for a recipe of profile `full`; None: all that are imported.
    Returns: the profile, whose `pick` chooses sizes.
    Raises: ValueError for a bad seed, profile or chapter; LedgerError if another process records this chapter.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be an integer from 0 to 2**32 - 1, got {seed!r}")
    chosen = profile if isinstance(profile, Profile) else Profile(profile)

    import random

    import numpy
    import torch

    from hjbridge.plotting.style import use_style

    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic kernels need on a GPU
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002 (the global generator is what has to be seeded)
    torch.manual_seed(seed)
    use_style()
    session.open_session(chosen, seed, chapter, modules)
    used = ", ".join(f"{name} {number}" for name, number in machine.versions().items())
    print(f"profile {chosen.name}, seed {seed}; {used}")
    return chosen
