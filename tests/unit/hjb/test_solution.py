import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import scipy
import torch
from safetensors.torch import save, save_file

import hjbridge
from hjbridge.hjb import ControlProblem, Grid, Riccati, Solution, load, solve
from hjbridge.hjb.problems import double_well, lqg, merton, stationary_lqr

F64 = torch.float64
PLANE = lqg(torch.tensor([[0, 1], [1, -0.2]]), [[0], [1.0]], 1.0, 0.5, 1.0, 0.5, 1.2)
LINE = stationary_lqr(-0.5, 1.0, 1.0, 0.1, 0.3, 0.1)
X = torch.tensor([[1.0, -2], [0.3, 0.4], [0, 0]], dtype=F64)
T = torch.tensor([0.0, 0.5, 1.2], dtype=F64)


def cubic(x, t):
    return x[:, 0] ** 3 * x[:, 1] + t * x[:, 1]


def test_the_gradient_is_that_of_the_value_unless_one_is_given():
    a, b = X.T
    expected = torch.stack([3 * a**2 * b, a**3 + T], 1)
    torch.testing.assert_close(Solution(PLANE, value_function=cubic).gradient(X, T), expected)
    given = Solution(PLANE, value_function=cubic, gradient_function=lambda x, t: 2 * x + t.unsqueeze(-1))
    torch.testing.assert_close(given.gradient(X, T), 2 * X + T.unsqueeze(1))


def test_the_control_is_the_minimiser_unless_one_is_given():
    # u = -R^-1 B'p: minus twice the second entry of the gradient
    expected = -2 * (X[:, :1] ** 3 + T.unsqueeze(1))
    torch.testing.assert_close(Solution(PLANE, value_function=cubic).control(X, T), expected)
    given = Solution(PLANE, value_function=cubic, control_function=lambda x, t: x[:, :1] + t)
    torch.testing.assert_close(given.control(X, 0.3), X[:, :1] + 0.3)


def test_the_control_sees_the_hessian_where_it_enters_the_noise():
    problem = ControlProblem(
        name="own", dim=2, controls=1, drift=lambda x, t: x, control_matrix=torch.ones(2, 1), controlled_noise=True,
        dispersion=lambda x, t, u: u * x, minimiser=lambda x, t, p, M: (M[:, 0, 1] + p[:, 1] * M[:, 0, 0]).unsqueeze(1),
    )  # fmt: skip
    a, b = X.T
    expected = 3 * a**2 + (a**3 + T) * 6 * a * b
    torch.testing.assert_close(Solution(problem, value_function=cubic).control(X, T)[:, 0], expected)


def test_a_problem_without_horizon_accepts_and_ignores_time():
    x = X[:, :1]
    assert torch.equal(LINE.exact.value(x, 7.0), LINE.exact.value(x))
    assert torch.equal(LINE.exact.control(x, torch.tensor([1.0, 2.0, 3.0])), LINE.exact.control(x))


def test_a_control_without_value_says_so():
    only = Solution(PLANE, method="Own", control_function=lambda x, t: x[:, :1])
    assert torch.equal(only.control(X), X[:, :1])
    for ask in (only.value, only.gradient):
        with pytest.raises(ValueError, match="this solution by Own is a control without a value: certify gives its"):
            ask(X)


def test_bad_states_and_times_are_refused():
    for ask in (PLANE.exact.value, PLANE.exact.gradient, PLANE.exact.control, PLANE.exact.stop):
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1.2\], got 1.3"):
            ask(X, 1.3)
        with pytest.raises(ValueError, match="x must be finite, got NaN or infinity"):
            ask(X * math.inf)


@pytest.mark.parametrize("what", ["value", "gradient", "control"])
def test_no_nan_is_returned(what):
    def singular(x, t):
        return math.nan * (x if what == "gradient" else x[:, :1] if what == "control" else x[:, 0])

    solution = Solution(PLANE, **{f"{what}_function": singular})
    with pytest.raises(FloatingPointError, match=rf"the {what} is NaN at x = \[1.0, -2.0\]"):
        getattr(solution, what)(X)
    infinite = Solution(PLANE, value_function=lambda x, t: x[:, 0] + math.inf)
    assert infinite.value(X).isinf().all()


@pytest.mark.parametrize("sense", ["min", "max"])
def test_stopping_where_the_value_has_reached_the_obstacle(sense):
    problem = ControlProblem(
        name="own", dim=1, controls=0, drift=lambda x, t: x, control_matrix=torch.zeros(1, 0), dispersion=1.0,
        sense=sense, obstacle=lambda x, t: x[:, 0] + t,
    )  # fmt: skip
    pick = torch.minimum if sense == "min" else torch.maximum
    solution = Solution(problem, value_function=lambda x, t: pick(x[:, 0] + t, torch.full_like(x[:, 0], 2.0)))
    x = torch.tensor([[0.0], [1.0], [1.4], [1.6], [3.0]], dtype=F64)
    assert solution.stop(x, 0.5).tolist() == [(v + 0.5 <= 2) == (sense == "min") for v in x[:, 0].tolist()]
    # up to rounding
    off = replace(solution, value_function=lambda x, t: x[:, 0] + t + (-1e-7 if sense == "min" else 1e-7))
    assert off.stop(x, 0.5).all()
    assert not PLANE.exact.stop(X).any()


def test_solve_notes_where_a_solution_came_from():
    class Own:
        def solve(self, problem, seed):
            return Solution(problem, value_function=lambda x, t: seed * x[:, 0], meta={"rounds": 3})

        @classmethod
        def restore(cls, problem, settings, tensors):
            return cls().solve(problem, 0)

    found = solve(PLANE, Own(), seed=5)
    assert found.method == "Own" and found.value(X)[0].item() == 5.0
    assert (found.meta["method"], found.meta["seed"], found.meta["rounds"]) == ("Own", 5, 3)
    assert found.meta["seconds"] >= 0 and found.meta["torch"] == torch.__version__.split("+")[0]
    assert found.meta["numpy"] == np.__version__ and found.meta["scipy"] == scipy.__version__
    assert found.meta["hjbridge"] == hjbridge.__version__


def test_exact_solutions_say_where_they_came_from(tmp_path):
    well = double_well()
    versions = {name: version for name, version in well.exact.meta.items() if name in ("hjbridge", "torch", "numpy")}
    assert len(versions) == 3
    for problem, method in ((PLANE, "Riccati"), (LINE, "exact"), (merton(0.03, 0.08, 0.2, 2.0, T=1.0), "exact")):
        meta = problem.exact.meta
        assert (meta["method"], meta["seed"]) == (method, None) and versions.items() <= meta.items()
        assert meta["seconds"] >= 0 and problem.exact.method == "exact"
    assert LINE.exact.meta["seconds"] == 0.0 < well.exact.meta["seconds"] and well.exact.meta["method"] == "HopfCole"
    assert json.loads(json.dumps(well.exact.meta)) == well.exact.meta
    # what a method has made is not called exact
    assert Solution(PLANE, "Own", value_function=cubic).meta == {}
    assert solve(PLANE, Riccati(), seed=2).meta["seed"] == 2


def test_a_solution_is_saved_and_read_back(tmp_path):
    solution = replace(solve(PLANE, Riccati(), seed=3), history=[{"step": 1, "loss": 0.5}])
    path = solution.save(tmp_path / "deep" / "plane.safetensors")
    for again in (load(path), load(str(path), PLANE)):
        assert torch.equal(again.value(X, T), solution.value(X, T))
        assert torch.equal(again.gradient(X, T), solution.gradient(X, T))
        assert (again.method, again.meta, again.history) == ("Riccati", solution.meta, solution.history)
    # the argument that was a tensor is one again
    assert torch.equal(load(path).problem.arguments["A"], torch.tensor([[0, 1], [1, -0.2]]).double())
    assert [p.name for p in path.parent.iterdir()] == ["plane.safetensors"]


def test_an_exact_solution_is_restated(tmp_path):
    again = load(LINE.exact.save(tmp_path / "line.safetensors"))
    assert torch.equal(again.value(X[:, :1]), LINE.exact.value(X[:, :1])) and again.method == "exact"
    with pytest.raises(ValueError, match="problem must have an exact solution to load .*line.safetensors, got none"):
        load(tmp_path / "line.safetensors", replace(LINE, exact=None))


def test_a_solution_of_ones_own_problem_asks_for_it(tmp_path):
    own = replace(PLANE, name="own", arguments={})
    path = solve(own, Riccati()).save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="problem must be given: 'own' is none of hjbridge.hjb.problems"):
        load(path)
    with pytest.raises(ValueError, match=r"problem must be 'own', which .*own.safetensors solves, got 'lqg'"):
        load(path, PLANE)
    assert torch.equal(load(path, own).value(X, T), PLANE.exact.value(X, T))


def test_what_cannot_be_written_is_refused(tmp_path):
    odd = replace(PLANE.exact, problem=replace(PLANE, arguments={"payoff": object()}))
    with pytest.raises(ValueError, match="arguments, settings, meta and history must be plain values .*object"):
        odd.save(tmp_path / "odd.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["value", "gradient", "control"])
def test_a_function_that_load_could_not_rebuild_is_not_saved(tmp_path, name):
    grid = solve(PLANE, Grid(points=9, steps=4))
    for solution, method in ((PLANE.exact, "exact"), (replace(PLANE.exact, problem=PLANE), "exact"), (grid, "Grid")):
        other = replace(solution, **{f"{name}_function": lambda x, t: 0 * x[:, 0]})
        for changed in (other, replace(other, meta={})):
            with pytest.raises(ValueError, match=f"^{name}_function must be that of the solution by {method}, which"):
                changed.save(tmp_path / "changed")
        noted = replace(solution, meta={**solution.meta, "note": 1})
        assert load(noted.save(tmp_path / "noted"), PLANE).method == method
    assert [p.name for p in tmp_path.iterdir()] == ["noted"]
    # what was made by hand is not the problem's exact solution either
    with pytest.raises(ValueError, match="^value_function must be that of the solution by exact"):
        Solution(PLANE, value_function=cubic).save(tmp_path / "own")


def test_what_the_functions_were_stays_private():
    again = replace(LINE.exact, meta={})
    assert "_made" not in repr(again) and again._made == LINE.exact._made
    assert replace(again, _made=None, meta=again.meta) == again


def test_arguments_must_be_those_that_were_solved(tmp_path):
    path = solve(lqg(0.0, 1.0, 1.0, R=0.1, G=1.0, sigma=0.3, T=1.0), Riccati()).save(tmp_path / "line.safetensors")
    with pytest.raises(
        ValueError, match=r"problem must have R = 0.1, which .*line.safetensors was solved with, got 10"
    ):
        load(path, lqg(0.0, 1.0, 1.0, R=10, G=1.0, sigma=0.9, T=1.0))
    with pytest.raises(ValueError, match=r"problem must have sigma = 0.3, which .* was solved with, got 0.9"):
        load(path, lqg(0, 1, 1, R=0.1, G=1, sigma=0.9, T=1))
    same = lqg(0, 1, 1, R=0.1, G=1, sigma=0.3, T=1)
    assert load(path, same).problem is same
    without = replace(same, arguments={k: v for k, v in same.arguments.items() if k != "G"})
    with pytest.raises(ValueError, match="problem must have G = 1.0, which .* was solved with, got nothing"):
        load(path, without)
    plane = PLANE.exact.save(tmp_path / "plane")
    lists = lqg([[0, 1.0], [1.0, torch.tensor(-0.2).item()]], torch.tensor([[0.0], [1]]), 1, 0.5, 1, 0.5, 1.2)
    assert load(plane, lists) is lists.exact
    with pytest.raises(
        ValueError, match=r"problem must have A = \[\[0.*-0.2.*\]\], which .*plane was solved with, got"
    ):
        load(plane, lqg([[0, 1.0], [1.0, -0.3]], [[0], [1.0]], 1.0, 0.5, 1.0, 0.5, 1.2))


def test_an_argument_that_is_a_function_cannot_be_restated(tmp_path):
    own = replace(PLANE, arguments={**PLANE.arguments, "sigma": cubic})
    path = solve(own, Riccati()).save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="problem must be given: its sigma is a function, which .*own.safetensors"):
        load(path)
    assert torch.equal(load(path, own).value(X, T), PLANE.exact.value(X, T))


def test_a_method_of_ones_own_is_named(tmp_path):
    path = replace(PLANE.exact, method="Own").save(tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match="own.safetensors must be by a method of hjbridge.hjb, got 'Own'"):
        load(path)


def test_missing_and_damaged_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent is missing: solve the problem again and save it"):
        load(tmp_path / "absent")
    whole = solve(PLANE, Riccati()).save(tmp_path / "plane").read_bytes()
    other = save({"P": torch.zeros(1)}, metadata={"hjbridge": json.dumps({"problem": "lqg"})})
    for damaged in (b"", whole[:4], whole[:40], whole[:-1], b"\xff" * 8 + whole[8:], pickle.dumps({"P": 1}), other):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged must be a solution written by Solution.save, got"):
            load(tmp_path / "damaged")
    save_file({"P": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match="foreign must be a solution written by Solution.save"):
        load(tmp_path / "foreign")


def test_no_pickle_is_written_or_read(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("pickle was used")

    for module, name in ((pickle, "loads"), (pickle, "load"), (pickle, "dumps"), (torch, "load"), (torch, "save")):
        monkeypatch.setattr(module, name, refuse)
    solution = solve(PLANE, Riccati())
    assert torch.equal(load(solution.save(tmp_path / "plane")).value(X, T), solution.value(X, T))
