"""How far apart two sets of points or images are, and how well that is known.

`distances` between samples, `moments` behind the Frechet distance, `intervals` around an estimate, `clouds` on a line
against an exact law. Images are compared by the `features` of committed `classifiers`.
"""

from hjbridge.metrics.classifiers import Classifier
from hjbridge.metrics.distances import (
    coverage,
    energy_distance,
    kid,
    label_accuracy,
    nearest_distance,
    nearest_ratio,
    sliced_wasserstein,
    wasserstein,
)
from hjbridge.metrics.features import classifier, features
from hjbridge.metrics.intervals import Estimate, bootstrap, wilson
from hjbridge.metrics.moments import Moments, floor, frechet_distance

__all__ = [
    "Classifier",
    "Estimate",
    "Moments",
    "bootstrap",
    "classifier",
    "coverage",
    "energy_distance",
    "features",
    "floor",
    "frechet_distance",
    "kid",
    "label_accuracy",
    "nearest_distance",
    "nearest_ratio",
    "sliced_wasserstein",
    "wasserstein",
    "wilson",
]
