import math

import pytest
import torch

from hjbridge.score import ResidualMLP


def filled(*arguments, **options):
    """A network in float64 without the zeros it starts from."""
    network = ResidualMLP(*arguments, **options).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


@pytest.fixture
def x(generator):
    return torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=generator)


LEVEL = torch.linspace(-1, 1, 5, dtype=torch.float64)


@pytest.mark.parametrize("classes", [0, 3])
def test_it_starts_at_zero_and_keeps_the_shape(classes, x):
    network = ResidualMLP((1, 4, 4), 16, 2, classes=classes).double()
    y = network(x, LEVEL)
    assert y.shape == x.shape and y.abs().max() == 0
    assert network.head.bias.abs().max() == 0 and all(layer.weight.abs().max() == 0 for layer in network.outer)
    assert filled((1, 4, 4), 16, 2)(x, LEVEL).abs().max() > 0.1


def test_parameters_of_the_digits_network():
    """Two linear layers of the embedding, one each of stem and head; per block two, a layer norm and the modulation."""
    network = ResidualMLP((1, 8, 8), classes=10)
    linear = 256 * 256 + 256
    stem_and_head = (64 * 256 + 256) + (256 * 64 + 64)
    block = 2 * linear + 2 * 256 + (256 * 512 + 512)
    expected = 2 * linear + stem_and_head + 3 * block + 11 * 256
    assert sum(p.numel() for p in network.parameters()) == expected == 958_528


@pytest.mark.parametrize("label", [None, torch.tensor([0, 2, 3, 1, 3])])
def test_the_output_is_the_formula(x, label):
    network = filled((1, 4, 4), 16, 2, classes=3, level_scale=7.0)
    weights = dict(network.named_parameters())

    def linear(name, h):
        return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def silu(h):
        return h / (1 + (-h).exp())

    frequencies = torch.tensor([10_000 ** (-i / 7) for i in range(8)], dtype=torch.float64)
    angles = 7.0 * LEVEL[:, None] * frequencies
    embedding = linear("embed.2", silu(linear("embed.0", torch.cat([angles.sin(), angles.cos()], 1))))
    if label is not None:
        embedding = embedding + weights["label.weight"][label]
    embedding, h = silu(embedding), linear("stem", x.reshape(5, 16))
    for i in range(2):
        centred = h - h.mean(1, keepdim=True)
        normed = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        normed = weights[f"norms.{i}.weight"] * normed + weights[f"norms.{i}.bias"]
        scale, shift = linear(f"scale_shift.{i}", embedding).split(16, dim=1)
        h = h + linear(f"outer.{i}", silu((1 + scale) * linear(f"inner.{i}", normed) + shift))
    torch.testing.assert_close(
        network(x, LEVEL, label), linear("head", silu(h)).reshape(x.shape), rtol=1e-11, atol=1e-11
    )


def test_label_and_level_matter(x):
    network = filled((1, 4, 4), 16, 1, classes=3)
    labels = [torch.full((5,), k) for k in range(4)]
    outputs = [network(x, LEVEL, label) for label in labels] + [network(x, LEVEL), network(x, LEVEL + 0.01, labels[0])]
    for i, one in enumerate(outputs):
        for other in outputs[:i]:
            assert (one - other).abs().max() > 1e-3
    plain = filled((1, 4, 4), 16, 1)
    assert plain.label is None and torch.equal(plain(x, LEVEL, labels[0]), plain(x, LEVEL))


def test_gradients_reach_every_layer(x):
    network = filled((1, 4, 4), 16, 2, classes=3)
    network(x, LEVEL, torch.tensor([0, 1, 2, 3, 0])).square().mean().backward()
    assert all(
        p.grad is not None and math.isfinite(p.grad.sum()) and p.grad.abs().max() > 0 for p in network.parameters()
    )
