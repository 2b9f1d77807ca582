"""DDPM's CIFAR-10 network against diffusers' UNet2DModel with the same weights."""

import copy

import pytest
import torch
from safetensors.torch import save_file

from hjbridge.score.embedding import sinusoidal
from hjbridge.score.published import load_published

pytestmark = pytest.mark.bench

#: the published config.json of google/ddpm-cifar10-32
CONFIG = {
    "sample_size": 32, "in_channels": 3, "out_channels": 3, "center_input_sample": False,
    "block_out_channels": (128, 256, 256, 256), "layers_per_block": 2, "attention_head_dim": None,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "mid_block_scale_factor": 1,
    "act_fn": "silu", "norm_eps": 1e-6, "norm_num_groups": 32, "time_embedding_type": "positional",
}  # fmt: skip


@pytest.fixture(scope="module")
def peer():
    """UNet2DModel with weights that are random everywhere, norms and biases included."""
    import diffusers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = diffusers.UNet2DModel(**CONFIG).eval().requires_grad_(False)
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def ours(peer, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "diffusion_pytorch_model.safetensors"
    save_file({name: value.contiguous() for name, value in peer.state_dict().items()}, path)
    return load_published(path)


def images(n):
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_number_of_parameters(peer, ours):
    counts = {sum(p.numel() for p in network.parameters()) for network in (peer, ours)}
    assert counts == {35_746_307}


def test_output_is_that_of_unet2dmodel(peer, ours):
    x, step = images(4), torch.tensor([0, 17, 500, 999])
    expected = peer(x, step).sample
    assert 0.1 < expected.std() < 2
    assert (ours.network(x, step.float()) - expected).abs().max() < 1e-5


def test_time_features_are_those_of_diffusers():
    from diffusers.models.embeddings import get_timestep_embedding

    step = torch.arange(1000)
    expected = get_timestep_embedding(step, 128, flip_sin_to_cos=False, downscale_freq_shift=1)
    # diffusers works in float32, where the angle of step 999 is known to 6e-5
    assert (sinusoidal(step.double(), 128) - expected).abs().max() < 1e-4


def test_in_float64_only_the_time_features_differ(peer, ours, monkeypatch):
    from diffusers.models.embeddings import get_timestep_embedding

    def features(level, size):
        return get_timestep_embedding(level, size, flip_sin_to_cos=False, downscale_freq_shift=1)

    monkeypatch.setattr("hjbridge.score.unet.sinusoidal", features)
    x, step = images(2).double(), torch.tensor([3, 800])
    expected = copy.deepcopy(peer).double()(x, step).sample
    assert (copy.deepcopy(ours.network).double()(x, step) - expected).abs().max() < 1e-12


def test_denoiser_removes_the_predicted_noise(peer, ours):
    """t = k/1000 is the chain's step k, which diffusers counts from 0: D = (x - sigma eps) / alpha."""
    import diffusers

    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    x = images(1)
    for k in (1, 400, 1000):
        scheduler.set_timesteps(1000)
        noise = peer(x, k - 1).sample
        expected = scheduler.step(noise, k - 1, x).pred_original_sample
        torch.testing.assert_close(ours(x, k / 1000), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
