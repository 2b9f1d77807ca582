"""What is here and unharmed: data sets, checkpoints and classifiers, each read and verified."""

from __future__ import annotations

from dataclasses import dataclass

from hjbridge.data.sets import NAMES, SPLITS, load
from hjbridge.data.sources import SOURCES
from hjbridge.metrics.features import classifier
from hjbridge.score import release
from hjbridge.score.checkpoint import load as load_denoiser
from hjbridge.store import CLONE, cache, repository

VERIFIED, NOT_HERE, HARMED = "verified", "not here", "HARMED"


@dataclass(frozen=True)
class State:
    """What reading a data set or a checkpoint has shown.

    Attributes:
        name: of the data set or checkpoint.
        kind: embedded, full or checkpoint.
        holds: what is inside, in words.
        state: VERIFIED, NOT_HERE or HARMED.
        told: what brings it, or what is wrong and how to mend it.
    """

    name: str
    kind: str
    holds: str
    state: str
    told: str = ""

    @property
    def harmed(self) -> bool:
        """Whether it is here and not as it should be."""
        return self.state == HARMED


def overview() -> list[State]:
    """State of every data set, embedded and full; every byte that is here is verified."""
    kinds = {"digits": ("full",), "cifar10": ("full",)}
    return [_set(name, kind) for name in NAMES for kind in kinds.get(name, ("embedded", "full"))]


def _set(name: str, kind: str) -> State:
    if name in SOURCES and kind == "full" and not any((cache() / name / m).exists() for m in SOURCES[name].members):
        return State(name, kind, "", NOT_HERE, f"`hjbridge data fetch {name}` brings it")
    if kind == "embedded":
        home = repository()
        if home is None:
            return State(name, kind, "", NOT_HERE, f"it belongs to the repository: {CLONE}")
        if not any((home / "data" / name / file).exists() for file in (f"{name}.npz", "provenance.json")):
            return State(name, kind, "", NOT_HERE, f"`git checkout -- data/{name}` restores it")
    try:
        counts = [f"{len(load(name, split, full=kind == 'full')):,} {split}" for split in SPLITS]
    except (OSError, ValueError) as error:
        return State(name, kind, "", HARMED, str(error))
    return State(name, kind, ", ".join(counts), VERIFIED)


def verify() -> list[State]:
    """State of every data set (`overview`) and of every checkpoint, each read and checked; nothing is fetched."""
    return overview() + [_checkpoint(name) for name in release.names()]


def _checkpoint(name: str) -> State:
    path = release.folder() / f"{name}.safetensors"
    if not path.is_file():
        return State(name, "checkpoint", "", NOT_HERE, release.remedy(path))
    if not repository() and not release.whole(path):
        return State(name, "checkpoint", "", HARMED, f"{path} is not the published file: {release.remedy(path)}")
    kind, _, rest = name.partition("-")
    try:
        if kind == "classifier":
            data, _, seed = rest.rpartition("-")
            holds = f"classifier, test accuracy {classifier(data, int(seed)).header['accuracy']:.4f}"
        else:
            holds = f"denoiser, {sum(p.numel() for p in load_denoiser(path).parameters()):,} parameters"
    except (OSError, ValueError) as error:
        return State(name, "checkpoint", "", HARMED, str(error))
    return State(name, "checkpoint", holds, VERIFIED)
