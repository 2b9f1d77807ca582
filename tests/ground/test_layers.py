"""Imports go down: policy -> hjb -> score -> sde; ledger and science are strangers; `import hjbridge` is light."""

import ast
import subprocess
import sys

import pytest

FLOORS = ("sde", "score", "hjb", "policy")
# a floor may use these tools: where the committed checkpoints lie and what they are called, how a file is written whole
TOOLS_OF_SCIENCE = {"score.checkpoint": {"recipes", "store"}, "hjb.solution": {"store"}}
# the tools above the floors that may use the ledger: hashes for checkpoints, and the command line
TOOLS_OF_LEDGER = {
    "cli": None, "train": {"ledger.freshness"}, "features": {"ledger.freshness"},
    "evaluate": {"ledger", "ledger.files", "ledger.freshness", "ledger.runner"},
}  # fmt: skip


def imports(source, inside=True):
    """Module -> the modules of hjbridge that it imports, without the leading `hjbridge.`; inside: in functions, too."""
    modules = {}
    for path in sorted(source.rglob("*.py")):
        name = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = ast.parse(path.read_text(encoding="utf-8"))
    found = {}
    for name, tree in modules.items():
        found[name] = set()
        for node in ast.walk(tree) if inside else tree.body:
            wanted = []
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: relative import"
                # `from hjbridge.sde import process` names a module, `from hjbridge.sde import VP` does not
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                wanted = [word if word.removeprefix("hjbridge.") in modules else str(node.module) for word in full]
            found[name] |= {word.removeprefix("hjbridge.") for word in wanted if word.startswith("hjbridge.")}
    return found


def broken(found):
    """Every import that breaks a rule, as text."""
    floor = {name: level for level, name in enumerate(FLOORS)}
    faults = []
    for name, targets in found.items():
        top = name.split(".")[0]
        for target in targets:
            goal = target.split(".")[0]
            if top in floor:
                fine = (goal in floor and floor[goal] <= floor[top]) or goal in TOOLS_OF_SCIENCE.get(name, ())
            elif top == "ledger":
                # `setup` sets the style of the figures
                fine = goal in ("ledger", "store") or (name, target) == ("ledger.profile", "plotting")
            elif goal == "ledger":
                fine = name in TOOLS_OF_LEDGER and (TOOLS_OF_LEDGER[name] is None or target in TOOLS_OF_LEDGER[name])
            else:
                fine = goal != "cli"
            if not fine:
                faults.append(f"{name} imports {target}")
    return faults


def test_imports_only_go_down(root):
    found = imports(root / "src" / "hjbridge")
    assert {"sde.process", "score.denoiser", "ledger.results", "cli"} <= found.keys()
    assert "sde.process" in found["score.denoiser"]
    assert broken(found) == []


@pytest.mark.parametrize(
    ("module", "target"),
    [("sde.process", "score.grid"), ("sde.mixture", "data"), ("score.rules", "hjb.problem"), ("ledger.runner", "sde"),
     ("score.loss", "ledger.results"), ("ledger.results", "plotting"), ("metrics", "ledger.session"),
     ("train", "ledger.results"), ("data", "cli")],
)  # fmt: skip
def test_the_rule_sees_an_import_that_breaks_it(module, target):
    assert broken({module: {target}}) == [f"{module} imports {target}"]


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


def test_no_cycle_between_modules(root):
    found = imports(root / "src" / "hjbridge", inside=False)
    state: dict[str, int] = {}

    def visit(name, trail):
        if state.get(name) == 1:
            raise AssertionError(" -> ".join([*trail, name]))
        if name in state or name not in found:
            return
        state[name] = 1
        for target in sorted(found[name] - {name}):
            visit(target, [*trail, name])
        state[name] = 2

    for name in found:
        visit(name, [])
