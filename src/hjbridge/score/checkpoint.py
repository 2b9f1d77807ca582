"""Denoisers on disk: safetensors with everything needed to rebuild them in the header, never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hjbridge.score.continuous import ContinuousNoisePredictor
from hjbridge.score.denoiser import Denoiser, NoisePredictor
from hjbridge.score.mlp import ResidualMLP
from hjbridge.score.ncsnpp import NCSNpp
from hjbridge.score.release import find, remedy
from hjbridge.score.unet import UNet, zero_outputs
from hjbridge.sde.process import Process
from hjbridge.sde.processes import DDPM, VE, VP, SubVP
from hjbridge.store import note_checkpoint, write_atomic

KEY = "hjbridge"
#: forward processes that a recipe may name, with their published ranges
PROCESSES: dict[str, type[Process]] = {"vp": VP, "subvp": SubVP, "ve": VE}
#: how the network inside a `Denoiser` is told the noise, for each prediction
PREDICTIONS = {"edm": "log_ratio", "velocity": "angle"}


def build(spec: Mapping[str, Any]) -> Denoiser | NoisePredictor | ContinuousNoisePredictor:
    """Make an untrained denoiser from its specification.

    Args: spec with `network` ("unet", "mlp" or "ncsnpp"), its `settings`, `prediction` ("edm": `Denoiser`; "velocity":
    the same, told the noise by its angle; "noise": `NoisePredictor` on DDPM's linear chain; "continuous":
    `ContinuousNoisePredictor`, told log sigma for VE and the time otherwise), `shape`, `pixel_mean`, `pixel_std` and
    `classes`; and if need be `process` ("vp" where it is absent, "subvp", "ve") and `grey_levels` (0).
    Raises: ValueError for an unknown network, prediction or process.
    """
    shape, classes = tuple(spec["shape"]), int(spec["classes"])
    network: nn.Module
    if spec["network"] == "unet":
        network = zero_outputs(UNet(shape[-1], shape[0], classes=classes, **spec["settings"]))
    elif spec["network"] == "mlp":
        network = ResidualMLP(shape, classes=classes, **spec["settings"])
    elif spec["network"] == "ncsnpp":
        network = NCSNpp(shape[-1], shape[0], classes=classes, **spec["settings"])
    else:
        raise ValueError(f"network must be 'unet', 'mlp' or 'ncsnpp', got {spec['network']!r}")
    if spec["prediction"] == "noise":
        return NoisePredictor(network, DDPM.linear(), classes=classes)
    if spec["prediction"] not in (*PREDICTIONS, "continuous"):
        known = ", ".join((*PREDICTIONS, "continuous"))
        raise ValueError(f"prediction must be one of {known} or noise, got {spec['prediction']!r}")
    process = spec.get("process", "vp")
    if process not in PROCESSES:
        raise ValueError(f"process must be one of {', '.join(PROCESSES)}, got {process!r}")
    if spec["prediction"] == "continuous":
        return ContinuousNoisePredictor(
            network, PROCESSES[process](), "log_sigma" if process == "ve" else "time", classes=classes,
            pixel_mean=spec["pixel_mean"], pixel_std=spec["pixel_std"],
        )  # fmt: skip
    return Denoiser(
        network, PROCESSES[process](), shape=shape, classes=classes, pixel_mean=spec["pixel_mean"],
        pixel_std=spec["pixel_std"], level=PREDICTIONS[spec["prediction"]], grey_levels=spec.get("grey_levels", 0),
    )  # fmt: skip


def digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """sha256 over the header, as JSON without its own `sha256`, then names, types, shapes and values of the tensors.

    Keys and names count in alphabetical order.
    """
    told = {key: value for key, value in header.items() if key != "sha256"}
    total = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        total.update(f"{key} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    return total.hexdigest()


def write(tensors: Mapping[str, Tensor], header: Mapping[str, Any], path: Path) -> None:
    """Write a safetensors file with a JSON header, so that `path` holds either the old file or the complete new one.

    The header gets `sha256`, the digest of both, which `read` compares with what it finds.
    """
    told = json.loads(json.dumps(header))  # as it will be read: lists for tuples, text for keys
    text = json.dumps({**told, "sha256": digest(tensors, told)}, sort_keys=True)
    write_atomic(path, save({k: v.detach().contiguous() for k, v in tensors.items()}, {KEY: text}))


def read(path: Path, restore: str = "make it again with `hjbridge train`") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a checkpoint; the store is told that this process has read it.

    Raises: FileNotFoundError or ValueError that names the file and says how to restore it, also for a pickle.
    """
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path} is missing: {restore}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            header = dict(json.loads((file.metadata() or {})[KEY]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"checkpoint {path} is not a whole safetensors file of hjbridge (pickles are never read): {restore}"
        ) from error
    if digest(tensors, header) != header.get("sha256"):
        raise ValueError(f"checkpoint {path} is harmed, its header and tensors do not have their sha256: {restore}")
    note_checkpoint(path)
    return tensors, header


def load(
    name: str | Path, *, device: str | torch.device = "cpu"
) -> Denoiser | NoisePredictor | ContinuousNoisePredictor:
    """A ready denoiser from a committed checkpoint ("digits", "mnist", "fashion-mnist", ...) or from a file.

    It computes in the type of its weights, float32, and answers in that of its input;
    `load(name).to(torch.float64)` computes in float64.

    Args: name of a committed checkpoint, which is fetched where there is no repository, or the path of a `.safetensors`
        file; device of its weights.
    Returns: the denoiser in evaluation mode, with its header in `.header` (recipe, seed, seconds, hashes).
    Raises: ValueError for an unknown name (lists the known); FileNotFoundError or ValueError for a missing or damaged
        file (names it, says how to restore it); OSError if one cannot be fetched.
    """
    path = Path(name) if Path(name).suffix == ".safetensors" else find(str(name))
    tensors, header = read(path, remedy(path))
    try:
        denoiser = build(header["spec"])
        denoiser.load_state_dict({k: v.float() for k, v in tensors.items()})
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"checkpoint {path} does not hold a denoiser that fits its specification: {error}") from error
    denoiser.header = header  # type: ignore[assignment]
    return denoiser.to(device).eval().requires_grad_(False)
