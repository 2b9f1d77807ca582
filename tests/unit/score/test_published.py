import re

import pytest
import torch
from safetensors.torch import save_file

from hjbridge.score import NoisePredictor, UNet, load_published
from hjbridge.score.published import FILE, translate
from hjbridge.sde.processes import DDPM

WIDTHS = (128, 256, 256, 256)
NEW = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
OLD = {"query": "query", "key": "key", "value": "value", "out": "proj_attn"}


def layout(attention):
    """Names and shapes of google/ddpm-cifar10-32, from the configuration of diffusers' UNet2DModel."""
    shapes = {}

    def weight(name, *shape):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def resnet(name, inner, outer):
        weight(f"{name}.norm1", inner)
        weight(f"{name}.conv1", outer, inner, 3, 3)
        weight(f"{name}.time_emb_proj", outer, 512)
        weight(f"{name}.norm2", outer)
        weight(f"{name}.conv2", outer, outer, 3, 3)
        if inner != outer:
            weight(f"{name}.conv_shortcut", outer, inner, 1, 1)

    def attend(name):
        weight(f"{name}.group_norm", 256)
        for part in attention.values():
            weight(f"{name}.{part}", 256, 256)

    weight("conv_in", 128, 3, 3, 3)
    weight("time_embedding.linear_1", 512, 128)
    weight("time_embedding.linear_2", 512, 512)
    inner, skips = 128, [128]
    for level, outer in enumerate(WIDTHS):
        for i in range(2):
            resnet(f"down_blocks.{level}.resnets.{i}", inner, outer)
            inner = outer
            skips.append(outer)
            if level == 1:
                attend(f"down_blocks.{level}.attentions.{i}")
        if level < 3:
            weight(f"down_blocks.{level}.downsamplers.0.conv", outer, outer, 3, 3)
            skips.append(outer)
    for i in range(2):
        resnet(f"mid_block.resnets.{i}", 256, 256)
    attend("mid_block.attentions.0")
    for level, outer in enumerate(reversed(WIDTHS)):
        for i in range(3):
            resnet(f"up_blocks.{level}.resnets.{i}", inner + skips.pop(), outer)
            inner = outer
            if level == 2:
                attend(f"up_blocks.{level}.attentions.{i}")
        if level < 3:
            weight(f"up_blocks.{level}.upsamplers.0.conv", outer, outer, 3, 3)
    weight("conv_norm_out", 128)
    weight("conv_out", 3, 128, 3, 3)
    return shapes


def tensors_of(attention):
    """Half-precision tensors, each filled with its own number."""
    return {k: torch.full(s, float(i), dtype=torch.float16) for i, (k, s) in enumerate(layout(attention).items())}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    save_file(tensors_of(NEW), folder / FILE)
    return folder


def test_the_layout_has_every_parameter_of_the_published_network():
    for attention in (NEW, OLD):
        assert sum(torch.Size(s).numel() for s in layout(attention).values()) == 35_746_307


@pytest.mark.parametrize("attention", [NEW, OLD], ids=["since 0.15", "before 0.15"])
def test_names_and_shapes_map_one_to_one(attention):
    with torch.device("meta"):
        ours = {name: tuple(p.shape) for name, p in UNet().named_parameters()}
    theirs = layout(attention)
    assert {translate(name): shape for name, shape in theirs.items()} == ours and len(theirs) == len(ours)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("conv_in.bias", "stem.bias"),
        ("time_embedding.linear_2.weight", "embed.2.weight"),
        ("down_blocks.0.resnets.1.conv2.weight", "down.1.0.conv2.weight"),
        ("down_blocks.0.downsamplers.0.conv.weight", "down.2.0.conv.weight"),
        ("down_blocks.1.attentions.0.to_q.weight", "down.3.1.query.weight"),
        ("down_blocks.1.attentions.1.proj_attn.bias", "down.4.1.out.bias"),
        ("down_blocks.3.resnets.1.norm2.weight", "down.10.0.norm2.weight"),
        ("mid_block.resnets.0.time_emb_proj.weight", "middle.0.shift.weight"),
        ("mid_block.attentions.0.to_out.0.weight", "middle.1.out.weight"),
        ("mid_block.resnets.1.conv1.bias", "middle.2.conv1.bias"),
        ("up_blocks.0.resnets.2.conv_shortcut.weight", "up.2.0.shortcut.weight"),
        ("up_blocks.0.upsamplers.0.conv.bias", "up.3.0.conv.bias"),
        ("up_blocks.2.attentions.1.group_norm.weight", "up.9.1.norm.weight"),
        ("up_blocks.3.resnets.0.conv1.weight", "up.12.0.conv1.weight"),
        ("conv_norm_out.weight", "norm.weight"),
        ("conv_out.weight", "head.weight"),
        ("class_embedding.weight", None),
        ("down_blocks.0.resnets.0.spectral.weight", None),
    ],
)
def test_places_in_the_network(theirs, ours):
    assert translate(theirs) == ours


def test_weights_arrive_where_they_belong(weights):
    denoiser = load_published(weights)
    assert isinstance(denoiser, NoisePredictor) and torch.equal(denoiser.process.betas, DDPM.linear().betas)
    assert not denoiser.training and denoiser.steps == 1000
    state = dict(denoiser.network.named_parameters())
    assert sum(p.numel() for p in state.values()) == 35_746_307
    for i, name in enumerate(layout(NEW)):
        value = state[translate(name)]
        assert value.dtype == torch.float32 and not value.requires_grad
        assert value.min() == value.max() == float(i), name
    assert denoiser.network.patch == 1 and denoiser.network.level_scale == 1.0 and denoiser.network.label is None


def test_file_or_folder_and_device(weights):
    denoiser = load_published(weights / FILE, device="meta")
    assert {p.device.type for p in denoiser.parameters()} == {"meta"}


def test_old_names_are_read_and_a_small_image_is_denoised(tmp_path):
    """One forward pass: with zeros in the head the predicted noise is the bias of the head, 0.5."""
    tensors = {k: torch.zeros(s, dtype=torch.float16) for k, s in layout(OLD).items()}
    tensors["conv_out.bias"] += 0.5
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    x = torch.full((1, 3, 32, 32), 0.25)
    bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)[299]
    expected = (0.25 - (1 - bar).sqrt() * 0.5) / bar.sqrt()
    d = load_published(path)(x, 0.3)
    torch.testing.assert_close(d, torch.full_like(d, expected.item()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"conv_in.bias": None, "mid_block.attentions.0.to_q.weight": None},
            "2 missing (middle.1.query.weight, stem.bias)",
        ),
        ({"class_embedding.weight": torch.zeros(10, 512)}, "1 unexpected (class_embedding.weight)"),
        ({"conv_in.weight": torch.zeros(128, 1, 3, 3)}, "1 of another shape (stem.weight)"),
        (
            {"conv_out.bias": None, "conv_out.scale": torch.zeros(3), "conv_norm_out.bias": torch.zeros(64)},
            "1 missing (head.bias); 1 unexpected (conv_out.scale); 1 of another shape (norm.bias)",
        ),
    ],
    ids=["missing", "unexpected", "shape", "all three"],
)
def test_parameters_that_do_not_fit_are_named(tmp_path, change, message):
    path = tmp_path / "weights.safetensors"
    save_file({k: v for k, v in (tensors_of(NEW) | change).items() if v is not None}, path)
    with pytest.raises(ValueError) as caught:
        load_published(path)
    pattern = "weights .* must be those of DDPM's CIFAR-10 network, got parameters (.*): download .* of google/ddpm-"
    assert re.match(pattern, str(caught.value))[1] == message and str(path) in str(caught.value)


def test_a_missing_or_damaged_file_and_a_pickle_are_named(tmp_path):
    for path in (tmp_path, tmp_path / "gone.safetensors"):
        with pytest.raises(FileNotFoundError, match=r"weights .* are missing: download .* and give its path"):
            load_published(path)
    damaged = tmp_path / "weights.safetensors"
    torch.save({"conv_in.bias": torch.zeros(128)}, damaged)
    for content in (damaged.read_bytes(), b"", b"\xff" * 8 + b"{}"):
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match="are not a whole safetensors file \\(pickles are never read\\): download"):
            load_published(damaged)
