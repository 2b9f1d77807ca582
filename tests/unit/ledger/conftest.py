"""A small repository in a temporary folder, and a record opened without importing torch."""

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hjbridge import store
from hjbridge.ledger import freshness, notebook, review, schema, seals, session
from hjbridge.ledger.claims import load_claims
from hjbridge.ledger.profile import Profile
from hjbridge.ledger.results import result

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with sealed claims and nothing else, used by the ledger until the test ends."""
    root = tmp_path / "repository"
    (root / "data" / "results").mkdir(parents=True)
    (root / "notebooks").mkdir()
    shutil.copyfile(REPOSITORY / "data" / "claims.yml", root / "data" / "claims.yml")
    monkeypatch.setenv("HJBRIDGE_ROOT", str(root))
    monkeypatch.delenv("HJBRIDGE_RESULTS", raising=False)
    monkeypatch.setattr(store, "loaded", {})  # other tests of this process have read checkpoints
    load_claims.cache_clear()
    (root / ".ci").mkdir()
    seal_claims(root)
    yield root
    session.close_session()
    load_claims.cache_clear()


@pytest.fixture
def begin(repository: Path) -> Callable[..., session.Session]:
    """Open a record: begin(profile="book", chapter="05", modules=None)."""

    def open_record(profile: str = "book", chapter: str | None = "05", modules: tuple[str, ...] | None = None):
        return session.open_session(Profile(profile), 0, chapter, modules)

    return open_record


@pytest.fixture
def form() -> SimpleNamespace:
    """How a record is written by hand: form.run(), form.entry(id), form.write(root, entry, ...)."""
    return SimpleNamespace(run=run, entry=entry, write=write, edit=edit, claims=claims)


def run(profile="book", notebook=None, modules=None, **changes):
    """What a record tells of its run."""
    hashes = {"notebook": notebook, "modules": modules or {}, "checkpoints": changes.pop("checkpoints", {})}
    made = {"versions": {"python": "3.11.7"}, "cpu": "a processor", "seconds": 1.5}
    return {"profile": profile, "seed": 0, **made, "hashes": hashes} | changes


def entry(id, value=1.0, **given):
    """A number as it is stored."""
    names = ("stderr", "n", "seeds", "unit", "protocol", "reference", "tolerance")
    return {"id": id, "value": value, **dict.fromkeys(names), "claims": []} | given


def write(root, *entries, chapter="05", run_=None, cells=None):
    """Write a file of the record below a repository; its path."""
    made = run() if run_ is None else run_
    full = made["profile"] == "full"
    stored = {one["id"]: one | ({"run": made} if full else {}) for one in entries}
    path = root / "data" / "results" / ("full" if full else "") / f"ch{chapter}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(schema.dump(chapter, {"profile": "full"} if full else made, stored, cells or {}))
    return path


def edit(path, change):
    """Change a JSON file by hand: change(tree)."""
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree, indent=2) + "\n")


def claims(root, *claims, seal=True):
    """Write data/claims.yml: claims of chapter 05, each given by its id and what differs from C31; seal it."""
    same = {"claim": "a is one", "kind": "numerical", "chapter": "05", "source": {}, "locus": None, "reported": None}
    same |= {"correct": "Yes.", "checked": "by hand", "ours": "a is {ch05.a}."}
    rule = {"if": "abs(ch05.a - 1) < 0.5", "verdict": "reproduced", "because": "It is."}
    entries = [same | {"rules": [rule]} | claim for claim in claims]
    (root / "data" / "claims.yml").write_text(yaml.safe_dump({"claims": entries}))
    load_claims.cache_clear()
    if seal:
        seal_claims(root)


def seal_claims(root):
    """What `hjbridge seal data/claims.yml` does, without its lock."""
    lookup = partial(result, folder=root / "data" / "results")
    entries = review.judged(load_claims(root / "data" / "claims.yml").values(), lookup)
    (root / review.LIST).write_text(review.dump(entries))


def cells():
    """The chapter: prose and four code cells, three of which show something."""
    code = {"cell_type": "code", "execution_count": 1, "metadata": {}}
    picture = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo=\n", "text/plain": ["<Figure>"]}}
    certified = {"output_type": "execute_result", "data": {"text/plain": ["V = 1.5, certified\n", "residual 1e-9"]}}
    table = {"output_type": "execute_result", "data": {"text/html": ["<b>1.5</b>"], "text/plain": ["1.5"]}}
    printed = {"name": "stdout", "output_type": "stream", "text": ["a = 1.5\n", "b = 2\n"]}
    shown = {"image": {"alt": "A curve that falls"}, "figure": {"caption": "It falls.", "name": "fig-a"}}
    return [
        {"cell_type": "markdown", "id": "cell-01", "metadata": {}, "source": "Prose."},
        code | {"id": "cell-02", "source": "a = 1.5", "outputs": []},
        code | {"id": "cell-03", "source": "print(a, b)", "outputs": [printed]},
        code | {"id": "cell-04", "source": "draw(a)", "outputs": [picture], "metadata": {"mystnb": shown}},
        code | {"id": "cell-05", "source": "certify(a)", "outputs": [certified, table]},
    ]


def weights(seed):
    """A checkpoint of a recipe that does not change."""
    header = json.dumps({"__metadata__": {"hjbridge": json.dumps({"modules": {}, "seed": seed})}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes([seed]) * 64


@pytest.fixture
def intact(repository, form, monkeypatch):
    """A repository with a recorded chapter, a number of profile `full`, checkpoints and a data set, all sealed."""
    monkeypatch.setattr(freshness, "PACKAGE", repository / "src")
    for name, content in (
        ("src/sde.py", b"def f(x):\n    return -x / 2\n"), ("data/checkpoints/digits.safetensors", weights(1)),
        ("data/checkpoints/mnist.safetensors", weights(2)),
        ("data/mnist/mnist.npz", bytes(99)), ("data/mnist/provenance.json", b"{}\n"),
        ("notebooks/05_x.ipynb", json.dumps({"nbformat": 4, "cells": cells()}).encode()),
    ):  # fmt: skip
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_bytes(content)
    loaded = {path.stem: store.fingerprint(path) for path in (repository / "data/checkpoints").iterdir()}
    modules = freshness.module_hashes(["hjbridge.sde"])
    told = {"n": 100, "seeds": [0, 1, 2], "unit": "nats", "protocol": "mean of 3", "stderr": 0.01, "claims": ["C31"]}
    numbers = [
        form.entry("ch05.a", 1.5, **told), form.entry("ch05.b", 2.0, reference=2.0, tolerance=0.5),
        form.entry("ch05.c", 3),
    ]  # fmt: skip
    run = form.run(notebook=freshness.notebook_hash(cells()), modules=modules, checkpoints=loaded)
    form.write(repository, *numbers, run_=run, cells=notebook.output_digests(cells()))
    form.write(repository, form.entry("ch05.d", 4.0, **told), run_=form.run("full", checkpoints=loaded))
    rule = {"if": "abs(ch05.a - 1.5) < 0.02", "verdict": "reproduced", "because": "It is."}
    form.claims(
        repository, {"id": "C31", "rules": [rule]},
        {"id": "C32", "ours": "d is {ch05.d@full}.", "rules": [rule | {"if": "ch05.d@full > 3"}]},
    )  # fmt: skip
    for name in seals.covered(repository):
        seals.renew(repository / name)
    return repository
