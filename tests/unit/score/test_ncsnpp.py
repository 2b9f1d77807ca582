import math

import pytest
import torch
import torch.nn.functional as F

from hjbridge.score.embedding import sinusoidal
from hjbridge.score.ncsnpp import BigGANBlock, NCSNpp, RandomFeatures, normalisation
from hjbridge.score.resample import double, halve, smooth
from hjbridge.score.unet import Attention

DDPMPP = {}
NCSNPP = {"fir": True, "pyramid": True, "fourier": 16.0, "centred": False}
TINY = {"size": 8, "channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}


def tiny(seed=0, **settings):
    torch.manual_seed(seed)
    return NCSNpp(**(TINY | settings))


@pytest.mark.parametrize(
    ("settings", "blocks", "expected"),
    [
        (DDPMPP, 4, 61_804_419),
        (DDPMPP, 8, 106_632_579),
        (NCSNPP, 4, 62_758_787),
        (NCSNPP, 8, 107_586_947),
        (NCSNPP | {"fourier": 0.0}, 4, 62_693_251),
        (NCSNPP | {"fourier": 0.0}, 8, 107_521_411),
    ],
)
def test_parameters_of_the_networks_for_cifar10(settings, blocks, expected):
    """Counted in the published program (yang-song/score_sde_pytorch, commit cb1f359) with its six files of settings
    cifar10_{ddpmpp,ncsnpp}[_deep]_continuous for VP and VE; sub-VP has those of VP. It also counts the 128
    frequencies, which are never trained."""
    with torch.device("meta"):
        network = NCSNpp(blocks=blocks, **settings)
    assert sum(p.numel() for p in network.parameters()) == expected
    frozen = sum(b.numel() for b in network.buffers())
    assert frozen == (128 if settings.get("fourier") else 0)


def fill(network, scale=0.3):
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = scale * noise + (parameter.ndim == 1)
    return network.double().eval()


def group_norm(x, weights, name):
    """Normalisation over each group of channels and all pixels, eps = 1e-6."""
    parts = x.reshape(len(x), min(x.shape[1] // 4, 32), -1)
    parts = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, unbiased=False, keepdim=True) + 1e-6).sqrt()
    scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return parts.reshape(x.shape) * scale[:, None, None] + shift[:, None, None]


def silu(x):
    return x * torch.sigmoid(x)


def conv(x, weights, name, **options):
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def block(x, embedding, weights, name, resample=lambda x: x):
    h = conv(resample(silu(group_norm(x, weights, f"{name}.norm1"))), weights, f"{name}.conv1", padding=1)
    h = h + linear(embedding, weights, f"{name}.shift")[:, :, None, None]
    h = conv(silu(group_norm(h, weights, f"{name}.norm2")), weights, f"{name}.conv2", padding=1)
    x = resample(x)
    return ((conv(x, weights, f"{name}.shortcut") if f"{name}.shortcut.weight" in weights else x) + h) / 2**0.5


def attend(x, weights, name):
    pixels = group_norm(x, weights, f"{name}.norm").flatten(2).transpose(1, 2)
    query, key, value = (linear(pixels, weights, f"{name}.{part}") for part in ("query", "key", "value"))
    mixed = (query @ key.transpose(1, 2) / math.sqrt(x.shape[1])).softmax(-1) @ value
    return (x + linear(mixed, weights, f"{name}.out").transpose(1, 2).reshape(x.shape)) / 2**0.5


@pytest.mark.parametrize("resample", [None, halve, double])
@pytest.mark.parametrize("outer", [8, 12])
def test_block_is_its_formula(generator, outer, resample):
    module = fill(BigGANBlock(8, outer, 5, 0.0, resample))
    assert (module.shortcut is None) == (outer == 8 and resample is None)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64, generator=generator)
    embedding = torch.randn(2, 5, dtype=torch.float64, generator=generator)
    weights = {f"b.{k}": v for k, v in module.named_parameters()}
    expected = block(x, embedding, weights, "b", resample or (lambda x: x))
    torch.testing.assert_close(module(x, embedding), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("plus", [False, True])
def test_the_whole_network_is_its_drawing(generator, plus):
    """Three levels of one block, attention on the middle one, written out with the skips and the pyramid of inputs."""
    settings = NCSNPP if plus else DDPMPP
    network = NCSNpp(8, 3, 8, (1, 2, 2), 1, (4,), classes=3, **settings)
    network = fill(network)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=generator)
    level, label = torch.tensor([-0.3, 0.4], dtype=torch.float64), torch.tensor([1, 3])
    weights = dict(network.named_parameters())
    if plus:
        angles = 2 * math.pi * torch.outer(level, network.features.frequencies.double())
        features = torch.cat([angles.sin(), angles.cos()], 1)
    else:
        features = sinusoidal(level, 8)
    e = linear(silu(linear(features, weights, "embed.0")), weights, "embed.2")
    e = silu(e + weights["label.weight"][label])

    def down(x):
        return halve(x, plus)

    def up(x):
        return double(x, plus)

    image = 2 * x - 1 if plus else x
    skips = [conv(image, weights, "stem", padding=1)]
    skips.append(block(skips[-1], e, weights, "down.0.0.block"))
    for i in (0, 1):
        h = block(skips[-1], e, weights, f"halves.{i}", down)
        if plus:
            h = image = (h + conv(smooth(image, 2), weights, f"pyramid.{i}.conv", stride=2)) / 2**0.5
        skips.append(h)
        h = block(h, e, weights, f"down.{i + 1}.0.block")
        skips.append(attend(h, weights, "down.1.0.attention") if i == 0 else h)
    h = attend(block(h, e, weights, "middle.0.block"), weights, "middle.0.attention")
    h = block(h, e, weights, "middle.1.block")
    for i in (0, 1, 2):
        if i > 0:
            h = block(h, e, weights, f"doubles.{i - 1}", up)
        for j in (0, 1):
            h = block(torch.cat([h, skips.pop()], 1), e, weights, f"up.{i}.{j}.block")
        if i == 1:
            h = attend(h, weights, "up.1.1.attention")
    assert not skips
    expected = conv(silu(group_norm(h, weights, "norm")), weights, "head", padding=1)
    torch.testing.assert_close(network(x, level, label), expected, rtol=1e-9, atol=1e-9)
    assert (network(x, level) - expected).abs().max() > 1e-3
    assert sum(isinstance(m, Attention) for m in network.modules()) == 3


@pytest.mark.parametrize("settings", [DDPMPP, NCSNPP])
def test_three_steps_lower_the_loss_of_a_fixed_batch(generator, settings):
    network = tiny(dropout=0.0, **settings)
    x, noise = torch.rand(4, 3, 8, 8, generator=generator), torch.randn(4, 3, 8, 8, generator=generator)
    level = torch.tensor([-4.0, -1.0, 1.0, 3.0]) if settings else torch.tensor([0.1, 10.0, 500.0, 999.0])
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(4):
        loss = ((network(x + noise, level) - noise) ** 2).mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        optimiser.step()
    assert losses[0] == pytest.approx(noise.square().mean().item(), rel=1e-3)
    assert losses[3] < losses[2] < losses[1] < losses[0]
    # after the outputs have left zero, every weight is reached
    assert all(bool((p.grad != 0).any()) for p in network.parameters())


def test_weights_start_as_published():
    """Uniform with variance 2/(fan_in + fan_out); .1 of it for query, key and value, 1e-10 where a branch ends."""
    torch.manual_seed(0)
    network = NCSNpp(16, 3, 32, (1, 2), 1, (8,), **NCSNPP)
    last = ("conv2.weight", "head.weight", "out.weight")
    seen = set()
    for name, p in network.named_parameters():
        if p.ndim == 1:
            assert bool((p == (1.0 if "norm" in name and name.endswith("weight") else 0.0)).all()), name
            continue
        fans = (p.shape[0] + p.shape[1]) * (p[0, 0].numel() if p.ndim == 4 else 1)
        ends, projects = name.endswith(last), any(part in name for part in ("query", "key", "value"))
        scale = 1e-10 if ends else 0.1 if projects else 1.0
        seen.add(scale)
        bound = math.sqrt(6 * scale / fans)
        assert p.abs().max() <= bound * (1 + 1e-6) and p.abs().max() > 0.9 * bound, name
        assert p.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.25 if p.numel() < 1000 else 0.06), name
    assert seen == {1.0, 0.1, 1e-10}
    assert network(torch.rand(2, 3, 16, 16), torch.zeros(2)).abs().max() < 1e-3


def test_random_features_are_drawn_once_and_kept():
    torch.manual_seed(0)
    features = RandomFeatures(4000, 16.0)
    assert features.frequencies.std().item() == pytest.approx(16, rel=0.05)
    assert abs(features.frequencies.mean().item()) < 1.0
    assert not list(features.parameters()) and list(features.state_dict()) == ["frequencies"]
    assert torch.equal(features(torch.zeros(1)), torch.cat([torch.zeros(1, 4000), torch.ones(1, 4000)], 1))
    a, b = tiny(1, **NCSNPP), tiny(2, **NCSNPP)
    b.load_state_dict(a.state_dict())
    assert torch.equal(a.features.frequencies, b.features.frequencies)


def test_an_image_in_the_unit_interval_is_centred_first(generator):
    a, b = fill(tiny(pyramid=True)), fill(tiny(pyramid=True, centred=False))
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=generator)
    level = torch.tensor([1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(b(x, level), a(2 * x - 1, level), rtol=1e-12, atol=1e-12)


def test_dropout_acts_in_training_only():
    network = tiny(dropout=0.5)
    for parameter in network.parameters():
        parameter.data += 0.1
    x, level = torch.randn(2, 3, 8, 8), torch.zeros(2)
    assert not torch.equal(network(x, level), network(x, level))
    network.eval()
    assert torch.equal(network(x, level), network(x, level))


def test_normalisation_has_groups_of_four_and_32_at_most():
    assert [normalisation(n).num_groups for n in (4, 8, 48, 128, 384)] == [1, 2, 12, 32, 32]
    assert normalisation(8).eps == 1e-6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 30}, "size must be a positive multiple of 8 for 4 levels, got 30"),
        ({"size": 0}, "size must be a positive multiple of 8 for 4 levels, got 0"),
        ({"attention": (15,)}, "attention must be among the heights [32, 16, 8, 4], got (15,)"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"fourier": -1.0}, "fourier must not be negative, got -1.0"),
        ({"channels": 48}, "channels must give widths that 32 groups divide, got a width of 144"),
        ({"channels": 2}, "channels must give widths that some groups divide, got a width of 2"),
        ({"dropout": 1.5}, "dropout probability has to be between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with torch.device("meta"), pytest.raises(ValueError) as caught:
        NCSNpp(**settings)
    assert message in str(caught.value)


def test_one_pixel_is_an_image():
    network = NCSNpp(1, 3, 8, (1,), 1, (), pyramid=True)
    assert network(torch.zeros(2, 3, 1, 1), torch.zeros(2)).shape == (2, 3, 1, 1)


def test_wrong_input_is_named():
    network, level = tiny(), torch.zeros(2)
    for shape in ((2, 3, 16, 16), (2, 1, 8, 8), (3, 8, 8), (2, 3, 8, 4)):
        with pytest.raises(ValueError) as caught:
            network(torch.zeros(shape), level)
        assert str(caught.value) == f"x must have shape (batch, 3, 8, 8), got {shape}"
    with pytest.raises(ValueError, match=r"label must be None for a network without classes, got \(2,\) labels"):
        network(torch.zeros(2, 3, 8, 8), level, torch.tensor([0, 1]))
