"""Type hints of the science hold at run time: one walk through the public names, in a process of its own."""

import subprocess
import sys

WALK = """
from jaxtyping import install_import_hook

with install_import_hook(["hjbridge.sde", "hjbridge.score", "hjbridge.hjb"], "beartype.beartype"):
    import hjbridge.sde as sde
    import hjbridge.score as score
    import hjbridge.hjb as hjb
import torch

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
mixture = sde.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.1]], [[0.1]]])
processes = [sde.VP(), sde.SubVP(), sde.VE(), sde.EDM(), sde.Cosine(), sde.RectifiedFlow()]
processes.append(sde.DDPM(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)))
for process in processes:
    for t in (0.5, torch.tensor(0.5), torch.full((4,), 0.5, dtype=torch.float64)):
        for name in ("alpha", "sigma", "drift_coef", "diffusion"):
            getattr(process, name)(t)
        process.perturb(torch.zeros(4, 1, dtype=torch.float64), t, torch.ones(4, 1, dtype=torch.float64))
    denoiser = mixture.denoiser(process)
    grid = score.time_grid(process, 4)
    start = process.prior_sample((4, 1), generator, t=float(grid[0]), dtype=torch.float64)
    for rule in ("ancestral", "ddim", "euler", "heun", "dpmpp2m"):
        score.sample(denoiser, start, grid, rule, generator=generator)
    for method in ("euler", "heun", "rk4", "taylor15"):
        eta = 1.0 if method in ("euler", "taylor15") else 0.0
        equation = sde.reverse(process, denoiser.score, eta=eta)
        sde.integrate(equation, start, grid, method=method, generator=generator, record=True)
network = score.ResidualMLP((2,))
model = score.Denoiser(network, sde.VP(), 1.0)
score.denoising_loss(model, torch.randn(8, 2, generator=generator), generator=generator).backward()
problems = hjb.problems
plane = problems.lqg([[0, 1], [0, 0]], [[0], [1]], 1, 1, 1, 0.5, 1.0)
put = problems.american_put(40.0, 0.06, 0.2, 1.0)
for problem, method in (
    (plane, hjb.Riccati()), (plane, hjb.Grid(points=9, steps=4)), (put, hjb.Grid(points=41, steps=10)),
    (problems.stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1), hjb.PolicyIteration(points=21)),
    (problems.han_jentzen_e(1, 1.0), hjb.HopfCole()),
    (problems.merton(0.03, 0.08, 0.2, 2.0, T=1.0), hjb.Grid(points=21)),
    (problems.pendulum(), hjb.Grid(points=9, steps=3)),
):
    solution = hjb.solve(problem, method)
    x = problem.initial(4, generator)
    solution.value(x), solution.gradient(x, 0.5), solution.control(x, torch.full((4,), 0.25, dtype=x.dtype))
    solution.stop(x)
path = hjb.simulate(plane, plane.exact.control, plane.initial(8, generator), [0.0, 0.5, 1.0], generator)
hjb.path_defect(plane, plane.exact, path)
hjb.hjb_residual(plane, plane.exact.value, plane.initial(8, generator), 0.5, True)
str(hjb.certify(plane, plane.exact, paths=16, steps=6, points=16))
problems.soft_landing(1.62, 4.0, 1000.0, -20.0).at(torch.tensor([0.0, 1.0]))
try:
    sde.VP().alpha("noon")
except Exception as error:
    print(type(error).__name__)
"""


def test_hints_hold_on_the_way_from_data_to_noise_and_back():
    run = subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["TypeCheckError"], "a wrong type must be seen"
