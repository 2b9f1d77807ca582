import math

import pytest
import torch
import torch.nn.functional as F

from hjbridge.score import UNet
from hjbridge.score.embedding import sinusoidal
from hjbridge.score.unet import Attention, Down, Overview, ResidualBlock, Up, zero_outputs

PATCH = {"channels": 32, "multipliers": (1, 2), "blocks": 2, "attention": (), "patch": 2, "groups": 8}


def count(**settings):
    with torch.device("meta"):
        return sum(p.numel() for p in UNet(**settings).parameters())


def fill(network, scale=0.2):
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = scale * noise + (parameter.ndim == 1)
    return network.double()


@pytest.fixture
def x(generator):
    return torch.randn(2, 8, 6, 6, dtype=torch.float64, generator=generator)


def test_parameters_of_the_networks_of_ddpm():
    """Ho et al. 2020, appendix B: 35.7 million for CIFAR-10, 114 million for 256x256."""
    assert count() == 35_746_307
    assert count(size=256, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(16,)) == 113_673_219


def test_parameters_of_the_patch_network_block_by_block():
    """Channels 32 and 64 on 14x14 and 7x7 patches of 2x2, two blocks a level, attention in the middle alone."""

    def block(inner, outer):
        shortcut = inner * outer + outer if inner != outer else 0
        return 2 * inner + 9 * inner * outer + outer + 128 * outer + outer + 2 * outer + 9 * outer**2 + outer + shortcut

    attention, sampler = 2 * 64 + 4 * (64**2 + 64), {32: 9 * 32**2 + 32, 64: 9 * 64**2 + 64}
    expected = (32 * 128 + 128) + (128 * 128 + 128) + (9 * 4 * 32 + 32)
    expected += 2 * block(32, 32) + sampler[32] + block(32, 64) + block(64, 64)
    expected += 2 * block(64, 64) + attention
    expected += 2 * block(128, 64) + block(96, 64) + sampler[64]
    expected += block(96, 32) + 2 * block(64, 32) + 2 * 32 + (9 * 32 * 4 + 4)
    assert count(size=28, image_channels=1, **PATCH) == expected
    # labels add one embedding each and one for none
    assert count(size=28, image_channels=1, classes=10, **PATCH) == expected + 11 * 128
    # attention on every 7x7 block: two on the way down, three on the way up
    attended = PATCH | {"attention": (7,)}
    assert count(size=28, image_channels=1, **attended) == expected + 5 * attention
    # an overview of 7x7 places with 64 channels through 16 features
    overview = 2 * 64 + (64 * 49 * 16 + 16) + (128 * 32 + 32) + (16 * 64 * 49 + 64 * 49)
    assert count(size=28, image_channels=1, overview=16, **PATCH) == expected + overview


def test_it_starts_at_zero():
    torch.manual_seed(0)
    network = UNet(8, 1, 16, (1, 2), 1, (4,), groups=4, classes=3, overview=6)
    x, level = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 0.9])
    assert network(x, level).abs().max() > 0
    assert zero_outputs(network) is network
    assert network(x, level, torch.tensor([0, 3])).abs().max() == 0
    # every residual branch ends in zeros too: what comes out of it is what went in
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock | Attention | Overview)]
    for block in blocks:
        last = block.conv2 if isinstance(block, ResidualBlock) else block.out
        assert last.weight.abs().max() == 0 and last.bias.abs().max() == 0
    assert len(blocks) == 2 + 1 + 3 + 4 + 2 + 1 and network.stem.weight.abs().max() > 0


@pytest.mark.parametrize(("size", "dtype"), [(8, torch.float64), (32, torch.float32)])
def test_sinusoidal_features_are_the_direct_formula(size, dtype):
    level = torch.tensor([0.0, 0.5, 17.0, 999.0], dtype=dtype)
    features = sinusoidal(level, size)
    assert features.shape == (4, size) and features.dtype == dtype
    for row, c in zip(features, level, strict=True):
        for i in range(size // 2):
            angle = c.item() / 10_000 ** (i / (size // 2 - 1))
            assert row[i].item() == pytest.approx(math.sin(angle), abs=1e-3 if dtype == torch.float32 else 1e-12)
            assert row[size // 2 + i].item() == pytest.approx(
                math.cos(angle), abs=1e-3 if dtype == torch.float32 else 1e-12
            )


def group_norm(x, weights, name, groups):
    """Normalisation over each group of channels and all pixels, eps = 1e-6."""
    parts = x.reshape(len(x), groups, -1)
    parts = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, unbiased=False, keepdim=True) + 1e-6).sqrt()
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return parts.reshape(x.shape) * scale[:, None, None] + shift[:, None, None]


def silu(x):
    return x * torch.sigmoid(x)


def conv(x, weights, name, **options):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def residual(x, embedding, weights, name, groups, scale=False):
    h = conv(silu(group_norm(x, weights, f"{name}.norm1", groups)), weights, f"{name}.conv1", padding=1)
    shift = linear(embedding, weights, f"{name}.shift")[:, :, None, None]
    if scale:
        n = h.shape[1]
        h = group_norm(h, weights, f"{name}.norm2", groups) * (1 + shift[:, :n]) + shift[:, n:]
    else:
        h = group_norm(h + shift, weights, f"{name}.norm2", groups)
    h = conv(silu(h), weights, f"{name}.conv2", padding=1)
    return h + (conv(x, weights, f"{name}.shortcut") if f"{name}.shortcut.weight" in weights else x)


def attend(x, weights, name, groups):
    pixels = group_norm(x, weights, f"{name}.norm", groups).flatten(2).transpose(1, 2)
    query, key, value = (linear(pixels, weights, f"{name}.{part}") for part in ("query", "key", "value"))
    mixed = (query @ key.transpose(1, 2) / math.sqrt(x.shape[1])).softmax(-1) @ value
    return x + linear(mixed, weights, f"{name}.out").transpose(1, 2).reshape(x.shape)


def overview(x, embedding, weights, name, groups):
    features = linear(group_norm(x, weights, f"{name}.norm", groups).flatten(1), weights, f"{name}.inner")
    gain = linear(embedding, weights, f"{name}.shift")
    n = features.shape[1]
    return x + linear(silu(features * (1 + gain[:, :n]) + gain[:, n:]), weights, f"{name}.out").reshape(x.shape)


def test_overview_is_its_formula(x):
    module = fill(Overview(8, 6, 5, groups=4, rank=3))
    embedding = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights = {f"o.{k}": v for k, v in module.named_parameters()}
    torch.testing.assert_close(module(x, embedding), overview(x, embedding, weights, "o", 4), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("outer", [8, 12])
def test_residual_block_is_its_formula(x, outer, scale):
    block = fill(ResidualBlock(8, outer, 5, groups=2, dropout=0.0, scale=scale))
    embedding = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights = {f"b.{k}": v for k, v in block.named_parameters()}
    torch.testing.assert_close(
        block(x, embedding), residual(x, embedding, weights, "b", 2, scale), rtol=1e-11, atol=1e-11
    )


def test_attention_is_its_formula(x):
    module = fill(Attention(8, groups=4))
    weights = {f"a.{k}": v for k, v in module.named_parameters()}
    torch.testing.assert_close(module(x), attend(x, weights, "a", 4), rtol=1e-11, atol=1e-11)


def test_down_takes_windows_at_even_places_and_pads_behind(x):
    module = fill(Down(8))
    wide = torch.zeros(2, 8, 7, 7, dtype=torch.float64)
    wide[:, :, :6, :6] = x
    y = module(x)
    assert y.shape == (2, 8, 3, 3)
    for i in range(3):
        for j in range(3):
            window = wide[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected = torch.einsum("nchw,ochw->no", window, module.conv.weight) + module.conv.bias
            torch.testing.assert_close(y[:, :, i, j], expected, rtol=1e-11, atol=1e-11)


def test_up_repeats_each_pixel_four_times(x):
    module = fill(Up(8))
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(module(x), module.conv(repeated), rtol=0, atol=0)
    assert module(x).shape == (2, 8, 12, 12)


@pytest.mark.parametrize("rank", [0, 3])
def test_the_whole_network_is_its_drawing(generator, rank):
    """Two levels of two blocks with attention on the lower one, written out by hand with the skips."""
    network = fill(UNet(8, 1, 8, (1, 2), 2, (2,), patch=2, groups=4, classes=3, level_scale=100.0, overview=rank))
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=generator)
    level, label, weights = (
        torch.tensor([-0.3, 0.4], dtype=torch.float64),
        torch.tensor([1, 3]),
        dict(network.named_parameters()),
    )
    features = linear(silu(linear(sinusoidal(100 * level, 8), weights, "embed.0")), weights, "embed.2")
    e = silu(features + weights["label.weight"][label])

    def block(h, name):
        return residual(h, e, weights, f"{name}.0", 4)

    patches = torch.stack([x[:, 0, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
    a = conv(patches, weights, "stem", padding=1)
    b = block(a, "down.0")
    c = block(b, "down.1")
    d = conv(F.pad(c, (0, 1, 0, 1)), weights, "down.2.0.conv", stride=2)
    f = attend(block(d, "down.3"), weights, "down.3.1", 4)
    g = attend(block(f, "down.4"), weights, "down.4.1", 4)
    h = residual(g, e, weights, "middle.0", 4)
    h = attend(h, weights, "middle.1", 4)
    h = residual(overview(h, e, weights, "overview", 4) if rank else h, e, weights, "middle.2", 4)
    for i, skip in enumerate((g, f, d)):
        h = attend(block(torch.cat([h, skip], 1), f"up.{i}"), weights, f"up.{i}.1", 4)
    h = conv(h.repeat_interleave(2, 2).repeat_interleave(2, 3), weights, "up.3.0.conv", padding=1)
    for i, skip in enumerate((c, b, a), start=4):
        h = block(torch.cat([h, skip], 1), f"up.{i}")
    out = conv(silu(group_norm(h, weights, "norm", 4)), weights, "head", padding=1)
    expected = torch.empty_like(x)
    for k, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        expected[:, 0, i::2, j::2] = out[:, k]
    torch.testing.assert_close(network(x, level, label), expected, rtol=1e-9, atol=1e-9)
    assert (network(x, level) - expected).abs().max() > 1e-3


def test_patches_are_folded_and_unfolded_without_loss(generator):
    """The stem sees each 3-channel 2x2 square as 12 channels; what the head gives is laid back in place."""
    network = UNet(8, 3, 16, (1,), 1, (), patch=2, groups=4)
    seen = {}
    network.stem.register_forward_hook(lambda module, inputs, output: seen.update(stem=inputs[0]))
    network.head.register_forward_hook(lambda module, inputs, output: seen["stem"])
    x = torch.randn(2, 3, 8, 8, generator=generator)
    assert torch.equal(network(x, torch.zeros(2)), x)
    assert seen["stem"].shape == (2, 12, 4, 4) and torch.equal(seen["stem"][:, 5], x[:, 1, 0::2, 1::2])


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network = UNet(8, 1, 16, (1,), 1, (), groups=4, dropout=0.5)
    x, level = torch.randn(2, 1, 8, 8), torch.zeros(2)
    assert not torch.equal(network(x, level), network(x, level))
    network.eval()
    assert torch.equal(network(x, level), network(x, level))
    with pytest.raises(ValueError, match="dropout probability"):
        UNet(8, 1, 16, (1,), 1, (), groups=4, dropout=1.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 30}, "size must be a multiple of 8 (patch and levels), got 30"),
        ({"size": 28, "multipliers": (1, 2), "patch": 8}, "size must be a multiple of 16 (patch and levels), got 28"),
        ({"channels": 40}, "groups must divide channels = 40, got 32"),
        ({"overview": -1}, "overview must not be negative, got -1"),
    ],
)
def test_errors_name_what_is_wrong(settings, message):
    with torch.device("meta"), pytest.raises(ValueError) as caught:
        UNet(**settings)
    assert message in str(caught.value)
