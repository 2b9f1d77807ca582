"""What the room does with input that it cannot use: an error that names argument, value and what is accepted."""

import math

import pytest
import torch

from hjbridge.sde import (
    DDPM,
    EDM,
    SDE,
    VE,
    VP,
    Cosine,
    GaussianMixture,
    PosteriorMean,
    Process,
    RectifiedFlow,
    SubVP,
    forward,
    integrate,
    reverse,
)  # fmt: skip

X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [0.1, 0.2]], dtype=torch.float64)
NAN = torch.tensor([[0.5, math.nan], [2.0, 0.3], [0.1, 0.2]], dtype=torch.float64)
WHOLE = torch.ones(1, 2, dtype=torch.int64)
EYE = torch.eye(2, dtype=torch.float64)
MIXTURE = GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], torch.stack([EYE, EYE]))
DENOISER = MIXTURE.denoiser(EDM())
DECAY = SDE(lambda x, t: -x, lambda x, t: 0.5)


class Backwards(Process):
    """Its noise falls behind its signal, which no noising does."""

    def log_alpha(self, t):
        return 0 * t

    def sigma2(self, t):
        return 1 - t


class Plain(PosteriorMean):
    process = EDM()


def mixture(weights=(0.5, 0.5), means=((0.0, 0.0), (1.0, 1.0)), covariances=None):
    return GaussianMixture(list(weights), means, torch.stack([EYE, EYE]) if covariances is None else covariances)


def indefinite(smallest):
    return torch.stack([EYE, torch.diag(torch.tensor([1.0, smallest], dtype=torch.float64))])


def drifting(**change):
    return integrate(**{"sde": DECAY, "x": X, "grid": [0.0, 0.5, 1.0]} | change)


CASES = [
    # times
    (lambda: VP().alpha(1.3), r"t must lie in \[0, 1\], got 1\.3"),
    (lambda: VP().sigma(-1e-9), r"t must lie in \[0, 1\], got -1e-09"),
    (lambda: EDM().diffusion(torch.tensor([0.2, math.nan])), r"t must lie in \[0, 1\], got nan"),
    (lambda: VE().drift_coef(2), r"t must lie in \[0, 1\], got 2"),
    (lambda: SubVP().ratio(torch.tensor([0.5, 1.5])), r"t must lie in \[0, 1\], got 1\.5"),
    (lambda: MIXTURE.marginal(VP(), 1.5), r"t must lie in \[0, 1\], got 1\.5"),
    (lambda: DENOISER(X, -0.5), r"t must lie in \[0, 1\], got -0\.5"),
    (lambda: MIXTURE.marginal(VP(), torch.full((2, 2), 0.5)), r"t must be a number.*got shape \(2, 2\)"),
    (lambda: VP().perturb(X, torch.tensor([0.1, 0.2]), X), r"t must be .* one value per sample .*got shape \(2,\)"),
    (lambda: VP().perturb(X, torch.full((3, 1), 0.1), X), r"got shape \(3, 1\)"),
    # processes
    (lambda: VE(2.0, 2.0), r"sigma_min must satisfy 0 < sigma_min < sigma_max = 2\.0, got 2\.0"),
    (lambda: VE(1.0, math.inf), "sigma_min must satisfy 0 < sigma_min < sigma_max = inf, got 1"),
    (lambda: EDM(math.inf), "sigma_max must be positive and finite, got inf"),
    (lambda: VP(0.1, math.inf), r"must satisfy 0 < beta_min <= beta_max < inf, got 0\.1, inf"),
    (lambda: VE(3.0, 2.0), r"sigma_min must satisfy 0 < sigma_min < sigma_max = 2\.0, got 3\.0"),
    (lambda: VE(0.0, 2.0), "sigma_min must satisfy"),
    (lambda: VE(math.nan, 2.0), "sigma_min must satisfy .* got nan"),
    (lambda: EDM(0.0), r"sigma_max must be positive and finite, got 0\.0"),
    (lambda: Cosine(0.0), r"s must lie in \(0, 1\), got 0\.0"),
    (lambda: Cosine(1.0), r"s must lie in \(0, 1\), got 1\.0"),
    (lambda: VP(3.0, 2.0), r"beta_min and beta_max must satisfy .* got 3\.0, 2\.0"),
    (lambda: SubVP(0.0, 2.0), r"beta_min and beta_max must satisfy"),
    (lambda: DDPM([0.1, 1.0]), r"betas must lie in \(0, 1\), got 1"),
    (lambda: DDPM([0.1, -0.1]), r"betas must lie in \(0, 1\), got -0\.1"),
    (lambda: DDPM([0.1, math.nan]), r"betas must lie in \(0, 1\), got nan"),
    (lambda: DDPM([0.0, 0.5]), r"betas must lie in \(0, 1\), got 0"),
    (lambda: DDPM([]), r"betas must be a vector .* got shape \(0,\)"),
    (lambda: VP().time_of(1e5), r"ratio must lie in \[0, 152\.\d+\] for VP, got 100000"),
    (lambda: VE().time_of(0.009), r"ratio must lie in \[0\.01, 50\] for VE, got 0\.009"),
    (lambda: EDM().time_of(math.nan), "ratio must lie in .* got nan"),
    (lambda: Backwards().diffusion(0.5), r"sigma/alpha of Backwards must not decrease, got g\^2 = -1"),
    (lambda: VP().perturb(X, 0.5, X[:2]), r"noise must have the shape of x0, \(3, 2\), got \(2, 2\)"),
    # mixtures
    (lambda: mixture([0.5, 0.6]), r"weights must sum to one, got a sum of 1\.1"),
    (lambda: mixture([0.5, 0.5 + 1.5e-6]), r"weights must sum to one, got a sum of 1\.0000015"),
    (lambda: mixture([1.5, -0.5]), r"weights must be non-negative, got \[1\.5, -0\.5\]"),
    (lambda: mixture([0.5, math.nan]), "weights must be non-negative"),
    (lambda: mixture([0.2, 0.3, 0.5]), r"weights must have shape \(2,\) for means of shape \(2, 2\), got \(3,\)"),
    (lambda: mixture(means=[0.0, 1.0]), r"means must have shape \(k, d\), got \(2,\)"),
    (lambda: mixture(means=[[0.0, 0.0], [1.0, math.inf]]), "means must be finite"),
    (lambda: mixture(covariances=[[1.0], [1.0]]), r"covariances must have shape \(2, 2, 2\)"),
    (lambda: mixture(covariances=indefinite(-0.25)), r"covariances\[1\] must be positive definite, got .* -0\.25"),
    (lambda: mixture(covariances=indefinite(0.0)), r"covariances\[1\] must be positive definite, got .* 0"),
    (lambda: mixture(covariances=indefinite(4e-16)), r"covariances\[1\] must be positive definite, got .* 4e-16"),
    (lambda: mixture(covariances=[[[1, 0], [0, 1]], [[1, 0.5], [0.2, 1]]]), r"covariances\[1\] must be symm.*0\.3"),
    (lambda: mixture(covariances=[[[9, 1.2e-5], [0, 9]], [[1, 0], [0, 1]]]), r"covariances\[0\] must be symmetric"),
    (lambda: mixture(covariances=indefinite(math.nan)), r"covariances\[1\] must be finite"),
    (lambda: mixture(covariances=indefinite(0.5).requires_grad_()), "covariances must not require a gradient"),
    (lambda: MIXTURE.log_prob(NAN), "x must be finite, got NaN"),
    (lambda: MIXTURE.log_prob(WHOLE), r"x must be floating, got torch.int64: pass x.double\(\)"),
    (lambda: MIXTURE.score(WHOLE), "x must be floating, got torch.int64"),
    (lambda: DENOISER(WHOLE, 0.5), "x must be floating, got torch.int64"),
    (lambda: VP().perturb(WHOLE, 0.5, NAN), "x0 must be floating, got torch.int64"),
    (lambda: VP().perturb(NAN, 0.5, WHOLE), "noise must be floating, got torch.int64"),
    (lambda: MIXTURE.score(NAN), "x must be finite, got NaN"),
    (lambda: DENOISER(NAN, 0.5), "x must be finite, got NaN"),
    (lambda: DENOISER.score(torch.full((1, 2), math.inf), 0.5), "x must be finite"),
    (lambda: MIXTURE.score(torch.zeros(3, 4)), r"x must have shape \(n, 2\), got \(3, 4\)"),
    (lambda: MIXTURE.score(torch.zeros(2)), r"x must have shape \(n, 2\), got \(2,\)"),
    (lambda: DENOISER(X, torch.tensor([0.1, 0.2])), r"x must have shape \(2, 2\), got \(3, 2\)"),
    (lambda: DENOISER(X, 0.5, torch.zeros(3, dtype=torch.int64)), r"label must be None: .* got \(3,\)"),
    (lambda: MIXTURE.sample(0), "n must be positive, got 0"),
    (lambda: MIXTURE.marginal(VP(), torch.tensor([0.1, 0.2])).sample(3), "n must be 2, got 3"),
    (lambda: MIXTURE.marginal(VP(), torch.tensor([0.1])).marginal(VP(), 0.1), "cannot be noised again"),
    # views
    (lambda: PosteriorMean.score(DENOISER, X, 0.0), r"t must have a positive noise scale sigma\(t\), got t = 0"),
    (lambda: PosteriorMean.eps(DENOISER, X, 0.0), r"t must have a positive noise scale sigma\(t\), got t = 0"),
    (lambda: MIXTURE.denoiser(RectifiedFlow()).velocity(X, 1.0), "t must have a finite drift coefficient, got t = 1"),
    # equations
    (lambda: reverse(VP(), DENOISER.score, -0.1), r"eta must be finite and non-negative, got -0\.1"),
    (lambda: reverse(VP(), DENOISER.score, math.nan), "eta must be finite and non-negative, got nan"),
    (lambda: integrate(reverse(RectifiedFlow(), DENOISER.score), X, [1.0, 0.5]), "t must have finite coeff.*t = 1"),
    (lambda: integrate(forward(RectifiedFlow()), X, [0.5, 1.0], "heun"), "t must have finite coefficients.*t = 1"),
    (lambda: integrate(forward(VP()), X, [0.5, 1.5], "heun"), r"grid must lie in \[0, 1\], got 1\.5"),
    (lambda: drifting(sde=SDE(DECAY.drift, lambda x, t: torch.ones(4))), r"diffusion must return .* got shape \(4,\)"),
    (lambda: drifting(sde=SDE(DECAY.drift, lambda x, t: torch.ones(3, 1))), r"got shape \(3, 1\)"),
    (lambda: drifting(sde=SDE(DECAY.drift, lambda x, t: torch.ones(2)), x=X[:2]), r"got shape \(2,\)"),
    (lambda: drifting(sde=SDE(lambda x, t: -x[:, :1])), r"drift must return shape \(3, 2\).*got \(3, 1\)"),
    (lambda: drifting(sde=SDE(lambda x, t: -x.float())), r"drift must return .*float64.* got .*float32"),
    # integration
    (lambda: drifting(method="milstein"), "method must be one of euler, heun, rk4, taylor15, got 'milstein'"),
    (lambda: drifting(method="rk4"), "diffusion must be zero for method rk4"),
    (lambda: drifting(sde=SDE(DECAY.drift, lambda x, t: t), method="rk4"), r"zero for method rk4.* at t = 0\.5"),
    (lambda: drifting(sde=SDE(DECAY.drift, lambda x, t: x), method="taylor15"), "must not depend on x for .*taylor15"),
    (lambda: drifting(sde=SDE(DECAY.drift, lambda x, t: t * x), method="taylor15"), "must not depend on x"),
    (lambda: drifting(grid=[0.0, 0.5, 0.5]), r"strictly ascending, got grid\[2\] = 0\.5 after grid\[1\] = 0\.5"),
    (lambda: drifting(grid=[1.0, 0.5, 0.7]), r"strictly descending, got grid\[2\] = 0\.7 after grid\[1\] = 0\.5"),
    (lambda: drifting(grid=[0.5, 0.5]), "grid must be strictly"),
    (lambda: drifting(sde=forward(VP()), grid=[1.0, 0.5]), r"ascending, got grid\[1\] = 0\.5 after grid\[0\] = 1"),
    (lambda: drifting(sde=reverse(VP(), DENOISER.score), grid=[0.5, 1.0]), "grid must be strictly descending"),
    (lambda: drifting(sde=forward(VP()), grid=[0.0, 1.5]), r"grid must lie in \[0, 1\], got 1\.5"),
    (lambda: drifting(sde=reverse(VP(), DENOISER.score), grid=[1.0, -0.2]), r"grid must lie in \[0, 1\], got -0\.2"),
    (lambda: drifting(grid=[0.5]), "grid must be a vector of at least two finite times"),
    (lambda: drifting(grid=[[0.5, 1.0]]), "grid must be a vector of at least two finite times"),
    (lambda: drifting(grid=[0.5, math.nan]), "grid must be a vector of at least two finite times"),
    (lambda: drifting(x=NAN), "x must be finite, got NaN"),
    (lambda: drifting(x=torch.tensor(1.0)), r"x must be floating and of shape \(n, \.\.\.\)"),
    (lambda: drifting(x=torch.ones(2, 2, dtype=torch.int64)), "x must be floating"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CASES)
def test_error_names_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_just_allowed():
    mixture([0.5, 0.5 + 0.7e-6])
    mixture(covariances=[[[9, 0.8e-5], [0, 9]], [[1, 0], [0, 1]]])
    mixture(covariances=indefinite(1e-15))
    assert VP().alpha(torch.tensor([0.0, 1.0])).isfinite().all()
    assert VP(2.0, 2.0).time_of(VP(2.0, 2.0).ratio(1.0)).item() == pytest.approx(1)


def test_explosion_is_an_error_not_a_nan():
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        integrate(SDE(lambda x, t: x**3), 50 * X, torch.linspace(0, 1, 11))


def test_types():
    with pytest.raises(TypeError, match="t must be a floating tensor, got dtype torch.int64"):
        VP().alpha(torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="Plain must define __call__"):
        Plain().score(X, 0.5)
