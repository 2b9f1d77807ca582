"""Published weights of DDPM's CIFAR-10 network, in the layout of diffusers' UNet2DModel, read into `UNet`."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from hjbridge.score.denoiser import NoisePredictor
from hjbridge.score.unet import UNet
from hjbridge.sde.processes import DDPM

FILE = "diffusion_pytorch_model.safetensors"
SOURCE = f"download {FILE} of google/ddpm-cifar10-32 and give its path"

#: names inside diffusers' modules -> ours; the attention was renamed in diffusers 0.15 and files of both kinds exist
OUTSIDE = {
    "time_embedding.linear_1": "embed.0", "time_embedding.linear_2": "embed.2",
    "conv_in": "stem", "conv_norm_out": "norm", "conv_out": "head",
}  # fmt: skip
INSIDE = {
    "norm1": "norm1", "conv1": "conv1", "time_emb_proj": "shift", "norm2": "norm2", "conv2": "conv2",
    "conv_shortcut": "shortcut", "conv": "conv", "group_norm": "norm",
    "to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out",
    "query": "query", "key": "key", "value": "value", "proj_attn": "out",
}  # fmt: skip
BLOCK = re.compile(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)")
MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)")


def translate(name: str) -> str | None:
    """Name in `UNet()` of a parameter of diffusers' UNet2DModel; None if the network has no such parameter.

    Each level has 2 blocks on the way down and 3 on the way up, then its sampler; between them block, attention, block.
    """
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    if found := BLOCK.fullmatch(module):
        way, level, part, i, inner = found.groups()
        blocks = 2 if way == "down" else 3
        stage = int(level) * (blocks + 1) + (blocks if part.endswith("samplers") else int(i))
        place = f"{way}.{stage}.{1 if part == 'attentions' else 0}"
    elif found := MIDDLE.fullmatch(module):
        part, i, inner = found.groups()
        place = f"middle.{1 if part == 'attentions' else 2 * int(i)}"
    else:
        return None
    return f"{place}.{INSIDE[inner]}.{kind}" if inner in INSIDE else None


def load_published(path: str | Path, *, device: str | torch.device = "cpu") -> NoisePredictor:
    """DDPM's CIFAR-10 network with published weights, as a denoiser on the linear chain of 1000 steps.

    Data are images in [-1, 1], pixel = (x + 1) / 2; t = k/1000 is step k of the chain (Ho et al. 2020, appendix B).

    Args: path of a .safetensors file or of the folder that holds `diffusion_pytorch_model.safetensors`; device.
    Returns: the denoiser in evaluation mode, unconditional, for x (n, 3, 32, 32).
    Raises: FileNotFoundError or ValueError that names the file, also for a pickle, for parameters that are missing,
        unexpected or of the wrong shape.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"weights {path} are missing: {SOURCE}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"weights {path} are not a whole safetensors file (pickles are never read): {SOURCE}"
        ) from error
    with torch.device("meta"):
        network = UNet()
    expected = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    state = {translate(name) or name: tensor.float() for name, tensor in tensors.items()}
    problems = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(name for name in tensors if (translate(name) or name) not in expected),
        "of another shape": sorted(k for k, v in state.items() if expected.get(k, v.shape) != tuple(v.shape)),
    }
    told = "; ".join(f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in problems.items() if names)
    if told:
        raise ValueError(f"weights {path} must be those of DDPM's CIFAR-10 network, got parameters {told}: {SOURCE}")
    network.load_state_dict(state, assign=True)
    return NoisePredictor(network, DDPM.linear()).to(device).eval().requires_grad_(False)
