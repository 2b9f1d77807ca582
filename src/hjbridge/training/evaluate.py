"""Quality of a denoiser's samples under one protocol, and the long evaluations behind the image table of chapter 06."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from hjbridge import data as datasets
from hjbridge.ledger import files, record
from hjbridge.ledger.freshness import modules_hash
from hjbridge.metrics import classifier, features, frechet_distance, kid, label_accuracy, nearest_distance
from hjbridge.metrics.features import classifier_path
from hjbridge.score import load, sample, time_grid
from hjbridge.score.checkpoint import build, read
from hjbridge.score.rules import Rule, sde_dpmpp2m

JUDGES = (0, 1, 2)
#: training images whose features the kernel distance is measured against
KID_REFERENCE = 5000
#: modules that decide what an evaluation finds, beside the checkpoint
MODULES = (
    "hjbridge.training.evaluate", "hjbridge.metrics.distances", "hjbridge.metrics.moments",
    "hjbridge.metrics.intervals", "hjbridge.metrics.features", "hjbridge.metrics.classifiers", "hjbridge.data.sets",
    "hjbridge.data.formats", "hjbridge.data.images", "hjbridge.score.grid", "hjbridge.score.rules",
    "hjbridge.score.sample", "hjbridge.score.denoiser", "hjbridge.score.checkpoint", "hjbridge.score.embedding",
    "hjbridge.score.mlp", "hjbridge.score.unet", "hjbridge.sde.process", "hjbridge.sde.processes",
    "hjbridge.sde.posterior",
)  # fmt: skip


@dataclass(frozen=True)
class Quality:
    """How good a set of images is; every field but `nearest` is the mean over three classifiers.

    Attributes: fd Frechet distance to the training statistics; kid kernel distance to training images; accuracy share
    of images that the classifier takes for their label; nearest mean distance to the nearest training image in units
    of the same for real test images (1: as novel as real images, well below 1: copies).
    """

    fd: float
    kid: float
    accuracy: float
    nearest: float


@dataclass(frozen=True)
class Reference:
    """Real images of one data set: pixels (n, c, h, w), labels (n,), and the mean nearest distance of test images."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    novelty: float


@lru_cache(maxsize=2)
def reference(name: str, full: bool = False) -> Reference:
    """Real images of a data set, embedded or full (see `hjbridge.data.load`)."""
    train, test = (datasets.load(name, split, full=full) for split in datasets.SPLITS)
    pixels, held_out = train.pixels(), test.pixels()
    novelty = nearest_distance(held_out[:2000], pixels).mean().item()
    return Reference(pixels, torch.from_numpy(train.labels), held_out, torch.from_numpy(test.labels), novelty)


@lru_cache(maxsize=8)
def _kid_reference(name: str, judge: int, full: bool) -> Tensor:
    return features(classifier(name, judge), reference(name, full).train[:KID_REFERENCE])


def proportional_labels(labels: Tensor, n: int) -> Tensor:
    """Labels (n,) in the proportions of `labels`, sorted: every (len/n)-th of the sorted labels."""
    index = ((torch.arange(n, dtype=torch.float64) + 0.5) * len(labels) / n).long()
    return labels.sort().values[index]


def draw(
    denoiser: Any,
    labels: Tensor,
    rule: str | Rule = "dpmpp2m",
    steps: int = 10,
    *,
    seed: int = 0,
    guidance: float = 0.0,
    settings: Mapping[str, Any] | None = None,
    batch: int = 250,
    progress: bool = False,
) -> Tensor:
    """Pixels (n, c, h, w) in [0, 1], one sample for each of the labels (n,), in batches from one generator.

    Args: rule and steps as in `sample`; settings of `time_grid`. The result depends on `batch` as it does on `seed`.
    """
    if isinstance(getattr(denoiser, "network", None), torch.nn.Module):
        # one sixth less time in convolutions on a CPU, for other last digits
        denoiser = denoiser.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(seed)
    grid = time_grid(denoiser.process, steps, **(settings or {}))
    images = []
    for part in tqdm(labels.split(batch), desc=f"{steps} steps", disable=not progress, mininterval=5.0):
        noise = denoiser.process.prior_sample((len(part), *denoiser.shape), generator, t=grid[0])
        x = sample(denoiser, noise, grid, rule, label=part, guidance=guidance, generator=generator)
        images.append(denoiser.to_pixels(x))
    return torch.cat(images)


def quality(pixels: Tensor, labels: Tensor, name: str, *, full: bool = False) -> Quality:
    """Measure images in [0, 1] of shape (n, c, h, w) that should show `labels` (n,) of the data set `name`."""
    fd, mmd, accuracy = 0.0, 0.0, 0.0
    for seed in JUDGES:
        judge = classifier(name, seed)
        found = features(judge, pixels)
        fd += frechet_distance(found, judge.reference) / len(JUDGES)
        mmd += kid(found, _kid_reference(name, seed, full)).value / len(JUDGES)
        accuracy += label_accuracy(judge, pixels, labels).value / len(JUDGES)
    real = reference(name, full)
    nearest = nearest_distance(pixels, real.train).mean().item() / real.novelty
    return Quality(fd, mmd, accuracy, nearest)


def quality_of(
    denoiser: Any, name: str, rule: str | Rule = "dpmpp2m", steps: int = 10, *, n: int, seed: int, full: bool = False,
    **options: Any,
) -> Quality:  # fmt: skip
    """Quality of n samples of a denoiser, with labels in the proportions of the training set; options go to `draw`."""
    labels = proportional_labels(reference(name, full).train_labels, n)
    return quality(draw(denoiser, labels, rule, steps, seed=seed, **options), labels, name, full=full)


def real_quality(name: str, *, n: int, seed: int, full: bool = False) -> Quality:
    """The same for n real test images, drawn without replacement, beside which n samples are judged.

    Raises: ValueError if there are fewer.
    """
    real = reference(name, full)
    if n > len(real.test):
        raise ValueError(f"n must be at most the {len(real.test)} test images of {name}, got {n}")
    chosen = torch.randperm(len(real.test), generator=torch.Generator().manual_seed(seed))[:n]
    return quality(real.test[chosen], real.test_labels[chosen], name, full=full)


def unfinished(path: str | Path) -> Any:
    """The denoiser of a training run that still goes on: the averaged weights of its state (`NAME.safetensors.state`).

    Its `.header` tells how far it is (`step`, CPU `seconds`).
    Raises: FileNotFoundError or ValueError if there is no whole state at this path.
    """
    tensors, header = read(Path(path), "train on, or wait for the next save")
    with torch.random.fork_rng(devices=[]):
        denoiser = build(header["description"]["spec"])
    weights = [p for p in denoiser.parameters() if p.requires_grad]
    with torch.no_grad():
        for i, weight in enumerate(weights):
            weight.copy_(tensors[f"average.{i}"])
    denoiser.header = header  # type: ignore[assignment]
    return denoiser.eval().requires_grad_(False)


@dataclass(frozen=True)
class Plan:
    """One row of the image table: `samples` of the checkpoints by a rule, measured once for every seed.

    Attributes: name of the result; data set; checkpoints and sampling seeds, of which one has one entry or both agree;
    rule ("real": test images) and evaluations; n samples; full: against the whole data set; settings of `time_grid`;
    extrapolation of `sde_dpmpp2m`.
    """

    name: str
    data: str
    checkpoints: tuple[str, ...]
    seeds: tuple[int, ...]
    rule: str
    steps: int = 0
    n: int = 5000
    full: bool = True
    settings: Mapping[str, float] = field(default_factory=dict)
    extrapolation: float = 1.0

    def walk(self) -> str | Rule:
        """The rule as `sample` takes it."""
        return self.rule if self.extrapolation == 1 else partial(sde_dpmpp2m, extrapolation=self.extrapolation)

    def runs(self) -> Iterator[tuple[str, int]]:
        """Pairs of checkpoint and sampling seed."""
        length = max(len(self.checkpoints), len(self.seeds))
        checkpoints, seeds = (list(x) * (length if len(x) == 1 else 1) for x in (self.checkpoints, self.seeds))
        yield from zip(checkpoints, seeds, strict=True)

    def protocol(self) -> str:
        """How the numbers came about, in words."""
        if self.rule == "real":
            what = f"{self.n:,} real test images, drawn anew for each seed"
        else:
            seeds = "one sampling seed for each training seed" if len(self.checkpoints) > 1 else "one training seed"
            told = dict(self.settings) | ({} if self.extrapolation == 1 else {"extrapolation": self.extrapolation})
            how = "".join(f", {name} = {value:g}" for name, value in told.items())
            what = f"{self.n:,} samples without guidance by {self.rule} with {self.steps} evaluations{how}; {seeds}"
        return f"{what}; against the statistics of all training images, mean over the features of 3 classifiers"


SEEDS = (1, 2, 3, 4, 5)
#: rows with fifty evaluations; rule, rho and extrapolation were chosen on 1,000 samples: they trade FD for agreement
FIFTY = {
    "mnist": Plan("50", "mnist", ("mnist",), SEEDS, "ancestral", 50, settings={"rho": 3.0}),
    "fashion-mnist": Plan(
        "50", "fashion-mnist", ("fashion-mnist",), SEEDS, "sde_dpmpp2m", 50, settings={"rho": 3.0}, extrapolation=0.8
    ),
}
IMAGE_PLANS = tuple(
    plan
    for data, fifty in FIFTY.items()
    for plan in (
        fifty,
        Plan("10", data, (data,), SEEDS, "dpmpp2m", 10),
        Plan("real", data, (data,), tuple(range(1, 11)), "real"),
    )
)
DIGITS = ("digits", "digits-1", "digits-2")
PLANS = (
    *IMAGE_PLANS,
    Plan("dpmpp2m_10", "digits", DIGITS, (1, 2, 3), "dpmpp2m", 10, full=False),
    Plan("ancestral_1000", "digits", DIGITS, (1, 2, 3), "ancestral", 1000, full=False),
)


def evaluate(
    plan: Plan, folder: Path, progress: bool = True, modules: Sequence[str] | None = None
) -> list[dict[str, float]]:
    """Measure every run of a plan; what an interrupted evaluation has found in `folder` is not measured again.

    Args: folder for one small JSON file per run, named by checkpoint, rule, size, seed, code and classifiers. progress:
        show bars. modules that decide the outcome; None: those of this file.
    Returns: the fields of `Quality` and the CPU `seconds` of each run.
    """
    found, judges = [], hashlib.sha256()
    for judge in JUDGES:
        judges.update(classifier_path(plan.data, judge).read_bytes())
    for checkpoint, seed in plan.runs():
        path = datasets.root() / "checkpoints" / f"{checkpoint}.safetensors"
        trained = "" if plan.rule == "real" else f"-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
        told = dict(plan.settings) | ({} if plan.extrapolation == 1 else {"x": plan.extrapolation})
        rule = "-".join([plan.rule, str(plan.steps), *(f"{name}{value:g}" for name, value in told.items())])
        code = f"{modules_hash(modules or MODULES)[:8]}-{judges.hexdigest()[:8]}"
        stem = f"{checkpoint}{trained}-{rule}-{plan.n}-{seed}-{code}"
        file = folder / f"{stem}.json"
        if not file.is_file():
            start = time.process_time()
            if plan.rule == "real":
                result = real_quality(plan.data, n=plan.n, seed=seed, full=plan.full)
            else:
                options: dict[str, Any] = {"n": plan.n, "seed": seed, "full": plan.full, "progress": progress}
                options["settings"] = plan.settings
                result = quality_of(load(checkpoint), plan.data, plan.walk(), plan.steps, **options)
            measured = asdict(result) | {"seconds": time.process_time() - start}
            datasets.write_atomic(file, json.dumps(measured).encode())
        found.append(json.loads(file.read_text()))
    return found


def record_plans(names: Sequence[str] = (), progress: bool = True) -> None:
    """Measure the plans of some data sets (none: all) and put them on record as numbers of profile `full`.

    Raises: ValueError for an unknown name; FileNotFoundError or ValueError without the full data set or a checkpoint;
        RuntimeError if the code changed meanwhile.
    """
    from hjbridge.ledger.runner import full_record  # here, so that no chapter that draws samples depends on the runner

    known = tuple(dict.fromkeys(plan.data for plan in PLANS))
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"name must be one of {', '.join(known)}, got {unknown[0]!r}")
    plans, source = [plan for plan in PLANS if not names or plan.data in names], modules_hash(MODULES)
    for plan in plans:  # what is missing is told before hours have gone by
        datasets.load(plan.data, "test", full=plan.full)
        for checkpoint in plan.checkpoints if plan.rule != "real" else ():
            load(checkpoint)
    measured = [(plan, evaluate(plan, files.root() / "_build" / "evaluate", progress)) for plan in plans]
    if modules_hash(MODULES) != source:
        raise RuntimeError("the code was changed while it was evaluated: run the same command again")
    with full_record("06", MODULES):
        for plan, found in measured:
            seconds = round(sum(run["seconds"] for run in found), 1)
            for part in fields(Quality):
                values = [run[part.name] for run in found]
                record(
                    f"ch06.{part.name}_{plan.data.replace('-', '_')}_{plan.name}", values, n=plan.n,
                    seeds=[seed for _, seed in plan.runs()], protocol=plan.protocol(), sd=statistics.stdev(values),
                    cpu_seconds=seconds, command=f"hjbridge evaluate {plan.data}",
                )  # fmt: skip
