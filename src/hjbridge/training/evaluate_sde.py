"""The long evaluation behind chapter 07: samples and likelihoods of three processes on MNIST."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hjbridge import data as datasets
from hjbridge.ledger import files, record
from hjbridge.ledger.freshness import modules_hash
from hjbridge.score import Denoiser, flow_grid, load, log_likelihood
from hjbridge.score.checkpoint import PROCESSES as PROCESSES_BY_NAME
from hjbridge.training.evaluate import MODULES, Plan, evaluate

PROCESSES = ("vp", "subvp", "ve")
#: sampler -> rule, steps of the grid and its settings, those of chapter 06; each takes fifty evaluations
SAMPLERS = {
    "sde": ("ancestral", 50, {"rho": 3.0}),
    "pc": ("predictor_corrector", 25, {"rho": 3.0}),
    "ode": ("dpmpp2m", 50, {}),
}
SEEDS = (1, 2, 3)
#: samples of the table; of what is held against chapter 06
SAMPLES, MANY = 2000, 5000
#: grey values of MNIST
LEVELS = 256
#: test images and steps of the integration behind a likelihood
IMAGES, STEPS = 300, 48
#: modules that decide what samples are worth, and what is found in all, beside the checkpoints
SAMPLE_MODULES = (*MODULES, "hjbridge.score.predictor_corrector", "hjbridge.score.pixels")
SDE_MODULES = (
    *SAMPLE_MODULES, "hjbridge.training.evaluate_sde", "hjbridge.score.likelihood", "hjbridge.score.divergence",
    "hjbridge.score.encode", "hjbridge.score.bits", "hjbridge.sde.equation", "hjbridge.sde.integrate",
    "hjbridge.sde.steps",
)  # fmt: skip


def plans() -> Iterator[Plan]:
    """Process by sampler at 2,000 samples, the reverse SDE of VP at 5,000 as in chapter 06, and 2,000 real images."""
    for process in PROCESSES:
        for sampler, (rule, steps, settings) in SAMPLERS.items():
            names = {f"{process}_{sampler}": SAMPLES}
            if (process, sampler) == ("vp", "sde"):
                names["vp_sde_5000"] = MANY
            for name, n in names.items():
                yield Plan(name, "mnist", (f"mnist-{process}",), SEEDS, rule, steps, n=n, settings=settings)
    yield Plan("real", "mnist", ("mnist",), SEEDS, "real", n=SAMPLES)


def bits(process: str, seed: int, n: int = IMAGES, steps: int = STEPS, dress: str | None = None) -> dict[str, float]:
    """Bits per dimension of n test images, drawn anew with each seed, given their labels.

    With `dress` the network of one process is asked along the flow of another. The images are dequantised uniformly;
    fourth-order steps on a Karras grid, one Rademacher probe for the divergence. `halved` is the mean change when the
    steps of the first fifty images are cut in half.
    """
    denoiser, test = load(f"mnist-{process}"), datasets.load("mnist", "test", full=True)
    if dress is not None:
        told = {
            name: getattr(denoiser, name) for name in ("shape", "pixel_mean", "pixel_std", "classes", "grey_levels")
        }
        denoiser = Denoiser(denoiser.network, PROCESSES_BY_NAME[dress](), **told).eval()
    generator, start = torch.Generator().manual_seed(seed), time.process_time()
    chosen = torch.randperm(len(test), generator=generator)[:n]
    pixels, labels = test.pixels()[chosen], torch.as_tensor(test.labels)[chosen]
    grid = flow_grid(denoiser.process, steps)

    def measure(count: int, **options: Any) -> Any:
        return log_likelihood(
            denoiser.process, denoiser, pixels[:count], grid, divergence="hutchinson", unit="bits_per_dim",
            levels=LEVELS, label=labels[:count], batch=100, generator=torch.Generator().manual_seed(seed), **options,
        )  # fmt: skip

    found = measure(n).double()
    _, error = measure(min(n, 50), return_error=True)
    return {
        "bpd": found.mean().item(), "sd": found.std().item(), "halved": error.abs().mean().item(),
        "seconds": time.process_time() - start,
    }  # fmt: skip


def kept_bits(process: str, seed: int, folder: Path, dress: str | None = None) -> dict[str, float]:
    """The same, read from `folder` if an earlier call has measured it with this code and checkpoint."""
    path = datasets.root() / "checkpoints" / f"mnist-{process}.safetensors"
    trained = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    worn = "" if dress is None else f"-as-{dress}"
    file = folder / f"bits-{process}{worn}-{trained}-{IMAGES}-{STEPS}-{seed}-{modules_hash(SDE_MODULES)[:8]}.json"
    if not file.is_file():
        datasets.write_atomic(file, json.dumps(bits(process, seed, dress=dress)).encode())
    return dict(json.loads(file.read_text()))


def record_score_sde(progress: bool = True) -> None:
    """Measure samples and likelihoods of the three processes on MNIST and put them on record as profile `full`.

    Raises: FileNotFoundError or ValueError without the full data set or a checkpoint; RuntimeError if the code changed
        meanwhile.
    """
    from hjbridge.ledger.runner import full_record  # here, so that no chapter depends on the runner

    folder, source = files.root() / "_build" / "evaluate", modules_hash(SDE_MODULES)
    command = "hjbridge evaluate score-sde"
    datasets.load("mnist", "test", full=True)
    for process in PROCESSES:  # what is missing is told before an hour has gone by
        load(f"mnist-{process}")
    rows = [(plan, evaluate(plan, folder, progress, SAMPLE_MODULES)) for plan in plans()]
    asked = {process: (process, None) for process in PROCESSES} | {"subvp_as_vp": ("subvp", "vp")}
    likely = {name: [kept_bits(of, seed, folder, dress) for seed in SEEDS] for name, (of, dress) in asked.items()}
    if modules_hash(SDE_MODULES) != source:
        raise RuntimeError("the code was changed while it was evaluated: run the same command again")
    with full_record("07", SDE_MODULES):
        for plan, found in rows:
            for part in ("fd", "accuracy", "nearest"):
                values = [run[part] for run in found]
                record(
                    f"ch07.{part}_mnist_{plan.name}", values, n=plan.n, seeds=list(SEEDS), protocol=plan.protocol(),
                    sd=statistics.stdev(values), cpu_seconds=round(sum(run["seconds"] for run in found), 1),
                    command=command,
                )  # fmt: skip
        for name, found in likely.items():
            record(
                f"ch07.bpd_mnist_{name}", [run["bpd"] for run in found], n=IMAGES, seeds=list(SEEDS),
                unit="bits/dim", command=command, halved=max(run["halved"] for run in found),
                image_sd=statistics.mean(run["sd"] for run in found),
                cpu_seconds=round(sum(run["seconds"] for run in found), 1),
                protocol=f"{IMAGES} test images drawn anew for each seed, given their labels, uniformly dequantised; "
                f"probability flow by {STEPS} steps of order 4, one Rademacher probe for each image; one training seed",
            )  # fmt: skip
