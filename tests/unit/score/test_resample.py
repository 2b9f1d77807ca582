import pytest
import torch

from hjbridge.score.resample import double, halve, kernel, smooth

ROW = (1 / 8, 3 / 8, 3 / 8, 1 / 8)


@pytest.fixture
def x(generator):
    return torch.randn(2, 3, 6, 4, dtype=torch.float64, generator=generator)


def pixel(x, m, n):
    """x at a place, zero outside the image."""
    inside = 0 <= m < x.shape[2] and 0 <= n < x.shape[3]
    return x[:, :, m, n] if inside else torch.zeros_like(x[:, :, 0, 0])


def test_kernel_is_a_product_of_binomials_and_sums_to_one(x):
    weights = kernel(x)
    assert weights.shape == (3, 1, 4, 4) and weights.dtype == x.dtype
    assert weights[2, 0, 1].tolist() == [3 / 64, 9 / 64, 9 / 64, 3 / 64]
    torch.testing.assert_close(weights.sum((1, 2, 3)), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-15)


def test_halving_weighs_the_four_rows_around_each_square(x):
    y = halve(x)
    assert y.shape == (2, 3, 3, 2)
    for m in range(3):
        for n in range(2):
            terms = [ROW[i] * ROW[j] * pixel(x, 2 * m + i - 1, 2 * n + j - 1) for i in range(4) for j in range(4)]
            torch.testing.assert_close(y[:, :, m, n], sum(terms), rtol=1e-13, atol=1e-13)


def test_doubling_mixes_near_pixels_three_to_one(x):
    y = double(x)
    assert y.shape == (2, 3, 12, 8)
    # pixel 2 m lies a quarter pixel before m, pixel 2 m + 1 behind: 3/4 of m and 1/4 of the neighbour on that side
    for m in range(12):
        for n in range(8):
            beside, below = (1 if m % 2 else -1), (1 if n % 2 else -1)
            a = 0.75 * pixel(x, m // 2, n // 2) + 0.25 * pixel(x, m // 2 + beside, n // 2)
            b = 0.75 * pixel(x, m // 2, n // 2 + below) + 0.25 * pixel(x, m // 2 + beside, n // 2 + below)
            torch.testing.assert_close(y[:, :, m, n], 0.75 * a + 0.25 * b, rtol=1e-13, atol=1e-13)


def test_smoothing_alone_keeps_every_place(x):
    y = smooth(x, padding=2)
    assert y.shape == (2, 3, 7, 5)
    terms = [ROW[i] * ROW[j] * pixel(x, 1 + i - 2, 3 + j - 2) for i in range(4) for j in range(4)]
    torch.testing.assert_close(y[:, :, 1, 3], sum(terms), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("fir", [True, False])
def test_a_constant_comes_back(fir):
    x = torch.full((1, 2, 8, 8), 1.7, dtype=torch.float64)
    up, down = double(x, fir), halve(x, fir)
    border = slice(1, -1) if fir else slice(None)
    for y in (up, down, halve(up, fir)):
        inner = y[..., border, border]
        torch.testing.assert_close(inner, torch.full_like(inner, 1.7), rtol=0, atol=1e-14)
    if fir:  # zeros outside the image: 1/4 of a corner's two sides is lost
        assert up[0, 0, 0, 0].item() == pytest.approx(1.7 * 0.75**2) and up[0, 0, 0, 3].item() == pytest.approx(
            1.7 * 0.75
        )


def test_without_the_filter_squares_are_means_and_copies(x):
    torch.testing.assert_close(
        halve(x, False), x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)), rtol=1e-14, atol=1e-14
    )
    assert torch.equal(double(x, False), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_pixels_that_alternate_do_not_pass_the_filter():
    alternating = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4).expand(1, 1, 8, 8)
    for x in (alternating, alternating.mT):
        assert smooth(x, padding=0).abs().max() < 1e-15 and halve(x)[..., 1:-1, 1:-1].abs().max() < 1e-15


@pytest.mark.parametrize("fir", [True, False])
def test_odd_sizes_are_refused(fir):
    with pytest.raises(ValueError, match=r"x must have even height and width, got \(1, 2, 4, 5\)"):
        halve(torch.zeros(1, 2, 4, 5), fir)
    with pytest.raises(ValueError, match=r"x must have even height and width, got \(1, 2, 5, 4\)"):
        halve(torch.zeros(1, 2, 5, 4), fir)
