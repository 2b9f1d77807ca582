"""Imports go down: policy -> hjb -> score -> sde; ledger and science are strangers; no import goes in a circle."""

import ast
import subprocess
import sys

import pytest

FLOORS = ("sde", "score", "hjb", "policy")
# room -> the rooms, or single modules, that it may import beside itself
ALLOWED = {
    "store": set(),
    "data": {"store"},
    "sde": set(),
    "score": {"sde"},
    "hjb": {"sde", "score"},
    "policy": {"sde", "score", "hjb"},
    "metrics": {"store", "data", "sde", "score", "ledger.freshness"},
    "training": {"store", "data", "metrics", "sde", "score", "ledger"},
    "plotting": {"sde", "score", "hjb"},
    "ledger": {"store"},
    "cli": {"store", "data", "metrics", "training", "plotting", *FLOORS, "ledger"},
}
# single modules that may do more: where checkpoints lie, how a file is written whole, the style of figures and their
# dark drawings
EXTRA = {
    "score.checkpoint": {"store"}, "score.release": {"store"}, "hjb.solution": {"store"},
    "ledger.setup": {"plotting.style"}, "ledger.pages_run": {"plotting.dark"},
}  # fmt: skip
# circles that may be closed inside a function: `to_gym` hands a problem on, and a file read by `load` names its method
CLOSED_INSIDE = {("hjb.problem", "hjb.gym"), ("hjb.solution", "hjb")}


def imported(tree, inside):
    """Import statements that run: at the top of a module or, with `inside`, anywhere; those for type hints do not."""
    for node in ast.iter_child_nodes(tree):
        hints = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not hints and (inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from imported(node, inside)


def imports(source, inside=True):
    """Module -> the modules of hjbridge that it imports, without the leading `hjbridge.`; inside: in functions, too."""
    modules = {}
    for path in sorted(source.rglob("*.py")):
        name = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = ast.parse(path.read_text(encoding="utf-8"))
    found = {}
    for name, tree in modules.items():
        found[name] = set()
        for node in imported(tree, inside):
            wanted = []
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            else:
                assert node.level == 0, f"{name}: relative import"
                # `from hjbridge.sde import process` names a module, `from hjbridge.sde import VP` does not
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                wanted = [word if word.removeprefix("hjbridge.") in modules else str(node.module) for word in full]
            found[name] |= {word.removeprefix("hjbridge.") for word in wanted if word.startswith("hjbridge.")}
    return found


def broken(found):
    """Every import that breaks a rule, as text."""
    faults = []
    for name, targets in found.items():
        room = name.split(".")[0]
        may = ALLOWED.get(room, set()) | {room} | EXTRA.get(name, set())
        faults += [f"{name} imports {to}" for to in sorted(targets) if not {to, to.split(".")[0]} & may]
    return faults


def circle(found):
    """Modules of one circle, the first again at the end; None if there is none."""
    done, trail = set(), []

    def visit(name):
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done or name not in found:
            return None
        done.add(name)
        trail.append(name)
        closed = next(filter(None, map(visit, sorted(found[name] - {name}))), None)
        trail.pop()
        return closed

    return next(filter(None, map(visit, found)), None)


def test_imports_only_go_down(root):
    found = imports(root / "src" / "hjbridge")
    assert {"sde.process", "score.denoiser", "ledger.results", "hjb.methods.riccati", "training.loop"} <= found.keys()
    assert "sde.process" in found["score.denoiser"]
    assert broken(found) == []
    rooms = {name.split(".")[0] for name in found} - {"__init__"}
    assert rooms <= ALLOWED.keys(), "a room without a rule"


@pytest.mark.parametrize(
    ("module", "target"),
    [("sde.process", "score.grid"), ("sde.mixture", "data.sets"), ("score.rules", "hjb.problem"),
     ("ledger.runner", "sde"), ("score.loss", "ledger.results"), ("ledger.results", "plotting.style"),
     ("metrics.distances", "ledger.session"), ("data.sets", "metrics.features"),
     ("score.checkpoint", "training.recipes"),
     ("data.sets", "cli"), ("hjb.methods.grid", "store")],
)  # fmt: skip
def test_the_rule_sees_an_import_that_breaks_it(module, target):
    assert broken({module: {target}}) == [f"{module} imports {target}"]


def test_nothing_below_a_method_imports_one(root):
    found = imports(root / "src" / "hjbridge")
    methods = {name for name in found if name.startswith("hjb.methods")}
    for name, targets in found.items():
        room = name.split(".")[1] if name.startswith("hjb.") else ""
        if room not in ("", "methods", "problems", "certificate"):
            assert not targets & methods, f"{name} imports a method"
        if room == "methods":
            assert not any(target.startswith(("hjb.problems", "hjb.certificate")) for target in targets), name


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("hjbridge", "torch numpy matplotlib scipy typer yaml"),
     ("hjbridge.cli", "torch numpy matplotlib scipy sklearn papermill IPython"),
     ("hjbridge.ledger", "torch numpy matplotlib scipy sklearn papermill IPython"),
     ("hjbridge.sde", "matplotlib scipy sklearn hjbridge.score"),
     ("hjbridge.data", "torchvision sklearn matplotlib")],
)  # fmt: skip
def test_imports_stay_light(module, heavy):
    code = f"import sys, {module}; print(*[m for m in {heavy.split()!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_no_circle_even_inside_functions(root):
    found = imports(root / "src" / "hjbridge")
    for name, target in CLOSED_INSIDE:
        assert target in found[name], f"{name} no longer imports {target}: strike it from the list"
        found[name].remove(target)
    assert circle(found) is None


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
