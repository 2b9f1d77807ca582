"""Quality of several denoisers, or of several draws of one, as one measurement with its spread and its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hjbridge.metrics import coverage
from hjbridge.training.evaluate import draw, proportional_labels, quality, reference


@dataclass(frozen=True)
class Qualities:
    """The measures of `hjbridge.training.evaluate.Quality` and the coverage, each as a list with one entry per seed.

    Attributes: fd, kid, accuracy, nearest, coverage; n samples for each; the sampling seeds; protocol in words.
    """

    fd: list[float]
    kid: list[float]
    accuracy: list[float]
    nearest: list[float]
    coverage: list[float]
    n: int
    seeds: tuple[int, ...]
    protocol: str

    @property
    def how(self) -> dict[str, Any]:
        """What `hjbridge.ledger.record` wants to know beside the numbers: n, seeds and protocol."""
        return {"n": self.n, "seeds": self.seeds, "protocol": self.protocol}


def qualities(
    denoisers: Sequence[Any], name: str, rule: str = "dpmpp2m", steps: int = 10, *, n: int, seeds: Sequence[int],
    guidance: float = 0.0,
) -> Qualities:  # fmt: skip
    """Quality of n samples of each denoiser, the i-th drawn with the i-th seed, labels as frequent as in training.

    Args: denoisers, all different (trained with different seeds) or the same one several times; name of the data set;
        rule, steps and guidance as in `sample`; n; seeds, one for each denoiser.
    Raises: ValueError if there are not as many seeds as denoisers, or none.
    """
    if not denoisers or len(denoisers) != len(seeds):
        raise ValueError(f"seeds must be one for each denoiser, got {len(seeds)} for {len(denoisers)}")
    real, found = reference(name), []
    labels = proportional_labels(real.train_labels, n)
    for denoiser, seed in zip(denoisers, seeds, strict=True):
        pixels = draw(denoiser, labels, rule, steps, seed=seed, guidance=guidance)
        found.append((quality(pixels, labels, name), coverage(pixels, real.train, real.test)))
    trained = len({id(denoiser) for denoiser in denoisers})
    protocol = (
        f"{n:,} samples of {name} by {rule} with {steps} steps, guidance {guidance:g}; {trained} training and "
        f"{len(set(seeds))} sampling seeds; mean over 3 classifiers"
    )
    return Qualities(
        fd=[q.fd for q, _ in found],
        kid=[q.kid for q, _ in found],
        accuracy=[q.accuracy for q, _ in found],
        nearest=[q.nearest for q, _ in found],
        coverage=[covered for _, covered in found],
        n=n,
        seeds=tuple(seeds),
        protocol=protocol,
    )
