"""The variational bound of DDPM, term by term, for data whose denoiser is known exactly."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from hjbridge.sde import DDPM, GaussianMixture, Process


class Bound(NamedTuple):
    """Terms of -E log p(x_0) <= prior + sum(steps) + decoder, in nats: L_N, L_1 .. L_(N-1) as (N - 1,), and L_0."""

    prior: Tensor
    steps: Tensor
    decoder: Tensor

    def total(self) -> float:
        """The bound itself."""
        return (self.prior + self.steps.sum() + self.decoder).item()


def prior_kl(process: Process, moment: float) -> Tensor:
    """What is lost because the process does not quite end in noise: L_N per dimension, in nats.

        L_N = E KL(q(x_N | x_0) || N(0, 1)) = (alpha_N^2 E x_0^2 + sigma_N^2 - 1 - log sigma_N^2) / 2

    Args: process; moment, the mean square E x_0^2 of one coordinate of the data. Returns: 0-d, float64.
    """
    alpha2, sigma2 = process.alpha(1.0) ** 2, process.sigma2(torch.tensor(1.0, dtype=torch.float64))
    # L_N = (alpha_N^2 E x_0^2 + sigma_N^2 - 1 - log sigma_N^2) / 2
    return (alpha2 * moment + (sigma2 - 1) - sigma2.log()) / 2


def noise_weights(chain: DDPM) -> Tensor:
    """Weights of the bound on the squared error of the noise, (N - 1,) for k = 2 .. N; `L_simple` has ones instead.

        L_(k-1) = (snr_(k-1) - snr_k) / (2 snr_k)  E |eps - eps_theta(x_k)|^2,        snr = alpha^2 / sigma^2

    Source: Ho et al. 2020, eq. 12, which writes the weight as beta^2 / (2 tilde beta (1 - beta) (1 - bar alpha)).
    """
    times = torch.arange(1, len(chain.betas) + 1, dtype=torch.float64) / len(chain.betas)
    snr = 1 / chain.ratio(times) ** 2
    # (snr_(k-1) - snr_k) / (2 snr_k)
    return -snr.diff() / (2 * snr[1:])


def variational_bound(chain: DDPM, mixture: GaussianMixture, x: Tensor) -> Bound:
    """The bound for a one-dimensional mixture and its exact denoiser D, by the trapezoid rule on the points x (m,).

        L_N = (alpha_N^2 E x_0^2 - alpha_N^2 - log sigma_N^2) / 2
        L_(k-1) = (snr_(k-1) - snr_k) / 2  E |x_0 - D(x_k)|^2,        snr = alpha^2 / sigma^2
        L_0 = (log(2 pi / snr_1) + snr_1 E |x_0 - D(x_1)|^2) / 2      (a decoder of variance 1 / snr_1)

    Source: Ho et al. 2020, eq. 5; the form of L_(k-1) is that of Kingma et al. 2021.
    Raises: ValueError if the mixture is not one-dimensional.
    """
    if mixture.means.shape[-1] != 1:
        raise ValueError(f"mixture must be one-dimensional, got {mixture.means.shape[-1]} dimensions")
    times = torch.arange(1, len(chain.betas) + 1, dtype=torch.float64) / len(chain.betas)
    bar, moment = chain.alpha(times) ** 2, mixture.covariance.item() + mixture.mean.item() ** 2
    p = torch.stack([mixture.marginal(chain, t).log_prob(x[:, None]).exp() for t in times])
    d = torch.stack([mixture.denoiser(chain)(x[:, None], t)[:, 0] for t in times])
    # E |x_0 - D|^2 = E x_0^2 - E D^2
    error, snr = moment - torch.trapezoid(p * d**2, x), bar / (1 - bar)
    return Bound(
        prior=prior_kl(chain, moment),
        steps=-snr.diff() / 2 * error[1:],
        decoder=(math.log(2 * math.pi) - snr[0].log() + snr[0] * error[0]) / 2,
    )


def bound_by_definition(chain: DDPM, mixture: GaussianMixture, x: Tensor) -> Bound:
    """The terms of `variational_bound` from their definitions: divergences between Gaussians, averaged by quadrature.

        L_N = E KL(q(x_N | x_0) || N(0, 1)),    L_0 = -E log p(x_0 | x_1),
        L_(k-1) = E KL(N(mu(x_k, x_0), tilde beta_k) || N(mu(x_k, D(x_k)), tilde beta_k)),
        mu(x_k, x_0) = (alpha_(k-1) beta_k x_0 + sqrt(1 - beta_k) sigma_(k-1)^2 x_k) / sigma_k^2

    It shares no formula with `variational_bound` and takes m^2 points for each term; x has to resolve sigma_1.

    Args: as `variational_bound`. Source: Ho et al. 2020, eq. 5 to 7. Raises: ValueError if the mixture is not
        one-dimensional.
    """
    if mixture.means.shape[-1] != 1:
        raise ValueError(f"mixture must be one-dimensional, got {mixture.means.shape[-1]} dimensions")
    times = torch.arange(len(chain.betas) + 1, dtype=torch.float64) / len(chain.betas)
    alpha, sigma2, oracle = chain.alpha(times), chain.sigma2(times), mixture.denoiser(chain)
    x0, xk, density = x[:, None], x[None, :], mixture.log_prob(x[:, None]).exp()

    def mean(values: Tensor, k: int) -> Tensor:
        """E values(x_0, x_k) over q(x_k | x_0) and the mixture."""
        law = Normal(alpha[k] * x0, sigma2[k].sqrt()).log_prob(xk).exp()
        return torch.trapezoid(density * torch.trapezoid(law * values, x), x)

    steps = []
    for k in range(2, len(times)):
        beta = chain.betas[k - 1]
        # tilde beta_k = sigma_(k-1)^2 / sigma_k^2 beta_k
        spread = (sigma2[k - 1] / sigma2[k] * beta).sqrt()
        # mu = (alpha_(k-1) beta_k x_0 + sqrt(1 - beta_k) sigma_(k-1)^2 x_k) / sigma_k^2
        mu, guess = (
            (alpha[k - 1] * beta * start + (1 - beta).sqrt() * sigma2[k - 1] * xk) / sigma2[k]
            for start in (x0, oracle(x[:, None], times[k]).T)
        )
        steps.append(mean(kl_divergence(Normal(mu, spread), Normal(guess, spread)), k))
    end = kl_divergence(Normal(alpha[-1] * x, sigma2[-1].sqrt()), Normal(torch.zeros_like(x), 1.0))
    decoder = Normal(oracle(x[:, None], times[1]).T, sigma2[1].sqrt() / alpha[1])
    return Bound(torch.trapezoid(density * end, x), torch.stack(steps), -mean(decoder.log_prob(x0), 1))


def bound_gap(bar: Tensor, mixture: GaussianMixture, x: Tensor) -> float:
    """What the bound loses against the entropy of the data, in nats, for a mixture and its exact denoiser.

        gap = bound - (-int p log p dx)

    Args: bar (N,), alpha_k^2 for k = 1 .. N, descending in (0, 1); mixture and x as in `variational_bound`.
    """
    # beta_k = 1 - alpha_k^2 / alpha_(k-1)^2
    chain = DDPM(1 - bar / torch.cat([torch.ones_like(bar[:1]), bar[:-1]]))
    log_p = mixture.log_prob(x[:, None])
    # bound + int p log p dx
    return variational_bound(chain, mixture, x).total() + torch.trapezoid(log_p.exp() * log_p, x).item()
