"""Numbers that are known of the problems for the parameters named, to hold a solver against."""

from __future__ import annotations

#: `stationary_lqr(-0.5, 1, 1, 0.1, 0.3, 0.1)`: P, gain K, constant c and V(1), from the quadratic equation for P
LQR = {"p": 0.2659750769, "gain": 2.6597507691, "constant": 0.1196887846, "value": 0.2526763231}

#: per cent that the same regulator loses when it believes in half its drift, or in 0.5, 0.8, 1.2 times its control
LQR_WRONG = {"drift_half": 0.26, "push_half": 1.14, "push_08": 0.075, "push_12": 0.034}

#: `merton(0.03, 0.08, 0.2, 2, rho=0.05)`: risky fraction, growth M, consumption rate k and A = -V(1)
MERTON = {"fraction": 0.625, "growth": 0.045625, "rate": 0.0478125, "a": 437.4386}

#: `soft_landing(1.62, 4, 1000, -20)`: m/s, m, m/s and s, from the conservation of energy
LANDING = {"fuel": 78.215389, "ignition_height": 455.0, "ignition_speed": 46.538156, "time": 35.935425}

#: `european_option(40, 0.06, 0.2, 1, "put")` at spot 40 by Black and Scholes; the American put, on large binomial trees
PUTS = {"european": 2.06640, "american": 2.3195, "tree": 2.3195}

#: the butterfly 90/100/110 at spot 100, rate 0.1, a quarter: volatility in [0.15, 0.25], and constant ones, by trees
BUTTERFLY = {"ask": 4.882, "bid": 2.298, "vol15": 4.3638, "vol20": 3.5254, "vol25": 2.9283}

#: `han_jentzen_e(100, lam)` at the origin at time 0, by lam, from an integral over the chi-square law
HAN_JENTZEN_E = {1: 4.590161724604863, 10: 4.4929294913, 50: 3.7241759228}
