"""What a method returns: value, gradient and control of one problem, with where they came from; and `solve`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import torch
from torch import Tensor

from hjbridge.hjb import derivatives
from hjbridge.hjb.discrete.mdp import MDP, Tabular
from hjbridge.hjb.problem import ControlProblem, StateFunction, Time


@dataclass(frozen=True)
class Solution:
    """Value V(x, t), its gradient and the control of a problem.

    Attributes:
        problem: what it solves. method: the name of what solved it ("exact" for a closed form or a quadrature).
        value_function: V, differentiable in x and t; None if only a control is known. gradient_function: grad V; None
            differentiates V. control_function: u; None takes the minimiser of the problem's Hamiltonian at grad V.
        settings, tensors: what `load` needs to rebuild it. meta: method, seed, CPU seconds, versions, see `provenance`;
            an exact solution without meta gets that of a closed form: no seed, no seconds.
        history: what the method noted on its way, one mapping for each iteration.
        domain: lowest and highest state, each (d,), infinite where open, outside which value and control are refused;
            None if there is no such limit.
    """

    problem: ControlProblem
    method: str = "exact"
    value_function: StateFunction | None = None
    gradient_function: StateFunction | None = None
    control_function: StateFunction | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    domain: tuple[Tensor, Tensor] | None = None
    # value, gradient and control as they were made, which `replace` hands on: `save` refuses others
    _made: tuple[StateFunction | None, ...] | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if self._made is None:
            object.__setattr__(self, "_made", self._functions())
        if self.method == "exact" and not self.meta:
            object.__setattr__(self, "meta", provenance("exact", None, 0.0))

    def value(self, x: Tensor, t: Time = 0.0) -> Tensor:
        """V at x (n, d) and t, of shape (n,). Raises: ValueError if the solution is a control only, or for bad x, t."""
        if self.value_function is None:
            raise ValueError(f"this solution by {self.method} is a control without a value: certify gives its cost")
        return _finite(self.value_function(x, self.problem.time(x, t)), "value", x)

    def gradient(self, x: Tensor, t: Time = 0.0) -> Tensor:
        """grad V at x (n, d) and t, of shape (n, d)."""
        if self.gradient_function is not None:
            return _finite(self.gradient_function(x, self.problem.time(x, t)), "gradient", x)
        return _finite(derivatives.gradient(self.value, x, self.problem.time(x, t)), "gradient", x)

    def control(self, x: Tensor, t: Time = 0.0) -> Tensor:
        """u at x (n, d) and t, of shape (n, m)."""
        t = self.problem.time(x, t)
        if self.control_function is not None:
            return _finite(self.control_function(x, t), "control", x)
        M = derivatives.hessian(self.value, x, t) if self.problem.controlled_noise else None
        return _finite(self.problem.best_control(x, t, self.gradient(x, t), M), "control", x)

    def stop(self, x: Tensor, t: Time = 0.0) -> Tensor:
        """Where the solution stops: V has reached the obstacle; (n,) of bool, all false if stopping is not allowed."""
        t, obstacle = self.problem.time(x, t), self.problem.obstacle
        if obstacle is None:
            return torch.zeros(len(x), dtype=torch.bool, device=x.device)
        v, psi = self.value(x, t), obstacle(x, t)
        tolerance = 1e-6 * (1 + psi.abs())
        return v >= psi - tolerance if self.problem.sense == "min" else v <= psi + tolerance

    def save(self, path: str | Path) -> Path:
        """Write the solution as safetensors, whole or not at all; returns the path.

        Raises: ValueError if the problem's arguments, the settings or the history cannot be written as JSON, or if
            value, gradient or control was replaced by another function, which `load` could not rebuild.
        """
        from safetensors.torch import save

        from hjbridge.store import write_atomic

        exact = self.problem.exact if self.method == "exact" else None
        made = self._made if exact is None else exact._functions()
        for what, ours, theirs in zip(("value", "gradient", "control"), self._functions(), made or (), strict=True):
            if ours is not theirs:
                raise ValueError(
                    f"{what}_function must be that of the solution by {self.method}, which load rebuilds, to be saved, "
                    f"got another function: save the solution as it was made"
                )
        header = {
            "problem": self.problem.name, "arguments": _plain(self.problem.arguments), "method": self.method,
            "settings": _plain(self.settings), "meta": dict(self.meta), "history": list(self.history),
        }  # fmt: skip
        try:
            text = json.dumps(header)
        except TypeError as error:
            raise ValueError(
                f"arguments, settings, meta and history must be plain values to be saved: {error}"
            ) from error
        # safetensors refuses an empty file
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.tensors.items()} or {
            "empty": torch.zeros(0)
        }
        path = Path(path)
        write_atomic(path, save(tensors, metadata={"hjbridge": text}))
        return path

    def _functions(self) -> tuple[StateFunction | None, ...]:
        return self.value_function, self.gradient_function, self.control_function


@runtime_checkable
class Method(Protocol):
    """How a problem is solved: anything with these two functions."""

    def solve(self, problem: ControlProblem, seed: int) -> Solution:
        """Solve the problem; `seed` starts every generator that is used."""
        ...

    @classmethod
    def restore(cls, problem: ControlProblem, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Solution:
        """Rebuild a solution from what `Solution.save` wrote."""
        ...


@runtime_checkable
class FiniteMethod(Protocol):
    """How a finite problem is solved: a method that has this function, too."""

    def solve_finite(self, problem: MDP) -> Tabular:
        """Solve the problem."""
        ...


def provenance(method: str, seed: int | None, seconds: float) -> dict[str, Any]:
    """Where a solution comes from: method, seed (None if nothing is random), CPU seconds, and versions by package."""
    return {"method": method, "seed": seed, "seconds": round(seconds, 4), **_versions()}


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in ("hjbridge", "torch", "numpy", "scipy"):
        try:
            found[name] = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


@overload
def solve(problem: ControlProblem, method: Method, seed: int = ...) -> Solution: ...
@overload
def solve(problem: MDP, method: FiniteMethod, seed: int = ...) -> Tabular: ...
def solve(problem: ControlProblem | MDP, method: Method | FiniteMethod, seed: int = 0) -> Solution | Tabular:
    """Solve a problem by a method; the solution's `meta` tells method, seed, CPU seconds and versions.

    Its `method` is the class that solved it, which is another one where a method hands the problem on. A finite problem
    has a table for a solution.

    Raises: ValueError if the method does not cover the problem (says which does); TypeError if it is no control problem
        or a finite one that the method cannot take.
    """
    if not isinstance(problem, ControlProblem | MDP):
        raise TypeError(f"problem must be a ControlProblem or an MDP, got {type(problem).__name__}: linearly solvable "
                        "ones are solved by hjbridge.hjb.discrete.solve_linear")  # fmt: skip
    start = time.process_time()
    if isinstance(problem, MDP):
        if not isinstance(method, FiniteMethod):
            raise TypeError(f"method must be PolicyIteration for an MDP, got {type(method).__name__}")
        table = method.solve_finite(problem)
        return replace(table, meta=provenance(type(method).__name__, seed, time.process_time() - start))
    assert isinstance(method, Method)
    found = method.solve(problem, seed)
    name = type(method).__name__ if found.method == "exact" else found.method
    meta = provenance(name, seed, time.process_time() - start)
    return replace(found, method=name, meta={**found.meta, **meta})


def load(path: str | Path, problem: ControlProblem | None = None) -> Solution:
    """Read a solution that `Solution.save` wrote.

    Args: problem, the one that was solved; None restates it from `hjbridge.hjb.problems` by name and arguments.
    Raises: FileNotFoundError or ValueError if the file is missing or damaged, or solves a problem of another name or
        with other arguments (names the first; two functions pass for the same).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    from hjbridge import hjb

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: solve the problem again and save it")
    content = path.read_bytes()
    try:
        tensors = parse(content)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["hjbridge"])
        header = {key: header[key] for key in ("problem", "arguments", "method", "settings", "meta", "history")}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} must be a solution written by Solution.save, got {error}: save it again") from error
    if problem is None:
        make = getattr(hjb.problems, header["problem"], None)
        if make is None:
            raise ValueError(f"problem must be given: {header['problem']!r} is none of hjbridge.hjb.problems")
        unsaid = [name for name, given in header["arguments"].items() if given == {"function": True}]
        if unsaid:
            raise ValueError(f"problem must be given: its {unsaid[0]} is a function, which {path} does not hold")
        problem = make(**_tensors(header["arguments"]))
    elif problem.name != header["problem"]:
        raise ValueError(f"problem must be {header['problem']!r}, which {path} solves, got {problem.name!r}")
    else:
        _check_arguments(header["arguments"], problem, path)
    if header["method"] == "exact":
        if problem.exact is None:
            raise ValueError(f"problem must have an exact solution to load {path}, got none")
        return problem.exact
    method: type[Method] | None = getattr(hjb, header["method"], None)
    if not hasattr(method, "restore"):
        raise ValueError(f"{path} must be by a method of hjbridge.hjb, got {header['method']!r}: call its restore")
    assert method is not None
    found = method.restore(problem, _tensors(header["settings"]), tensors)
    return replace(found, method=header["method"], meta=header["meta"], history=header["history"])


def _finite(values: Tensor, what: str, x: Tensor) -> Tensor:
    good = ~values.isnan().reshape(len(x), -1).any(1)
    if not bool(good.all()):
        raise FloatingPointError(f"the {what} is NaN at x = {x[~good][0].tolist()}")
    return values


def _check_arguments(saved: Mapping[str, Any], problem: ControlProblem, path: Path) -> None:
    given = json.loads(json.dumps(_plain(problem.arguments), default=repr))
    for name in {**saved, **given}:
        ours, theirs = (_bare(values.get(name, "nothing")) for values in (given, saved))
        if ours != theirs:
            raise ValueError(f"problem must have {name} = {theirs}, which {path} was solved with, got {ours}")


def _bare(value: Any) -> Any:
    return value["tensor"] if isinstance(value, dict) and "tensor" in value else value


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON: a tensor becomes {"tensor": nested list}, a function {"function": true}."""
    plain = {k: {"tensor": v.tolist()} if isinstance(v, Tensor) else v for k, v in values.items()}
    return {k: {"function": True} if callable(v) else v for k, v in plain.items()}


def _tensors(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: torch.tensor(v["tensor"], dtype=torch.float64) if isinstance(v, dict) and "tensor" in v else v
        for k, v in values.items()
    }
