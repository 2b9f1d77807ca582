"""The evaluation behind chapter 07, at a size of seconds: its plans, its bits against the library, what it records."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from hjbridge import data as datasets
from hjbridge.ledger import freshness, session
from hjbridge.ledger.results import load_chapter
from hjbridge.score import flow_grid, load, log_likelihood
from hjbridge.training import evaluate_sde as es
from hjbridge.training.evaluate import Plan

DATA = Path(__file__).parents[3] / "data"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with claims and nothing else; the kernels that `setup` chooses are given up again."""
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    shutil.copy(DATA / "claims.yml", root / "data")
    monkeypatch.setenv("HJBRIDGE_ROOT", str(root))
    yield root
    session.close_session()
    torch.use_deterministic_algorithms(False)


def test_the_plans_are_process_by_sampler_with_fifty_evaluations():
    plans = {plan.name: plan for plan in es.plans()}
    assert plans.keys() == {
        *(f"{p}_{s}" for p in ("vp", "subvp", "ve") for s in ("sde", "pc", "ode")), "vp_sde_5000", "real"
    }  # fmt: skip
    for name, plan in plans.items():
        assert plan.seeds == (1, 2, 3) and plan.data == "mnist" and plan.full
        assert plan.n == (5000 if name == "vp_sde_5000" else 2000)
        if name != "real":
            # a step of the corrector is one more evaluation
            assert plan.steps * (2 if plan.rule == "predictor_corrector" else 1) == 50
            assert plan.checkpoints == (f"mnist-{name.split('_')[0]}",)


@pytest.fixture
def small(monkeypatch):
    """The digits in the place of MNIST, and their networks in the place of its."""
    digits = datasets.load("digits", "test")
    monkeypatch.setattr(es.datasets, "load", lambda *names, **options: digits)
    monkeypatch.setattr(es, "load", lambda name: load(name.replace("mnist", "digits")))
    monkeypatch.setattr(es, "LEVELS", 17)
    return digits


def test_bits_are_those_of_log_likelihood_on_images_drawn_by_the_seed(small):
    found = es.bits("vp", seed=3, n=12, steps=6)
    generator = torch.Generator().manual_seed(3)
    chosen = torch.randperm(len(small), generator=generator)[:12]
    model = load("digits-vp")
    expected = log_likelihood(
        model.process, model, small.pixels()[chosen], flow_grid(model.process, 6), divergence="hutchinson",
        unit="bits_per_dim", label=torch.as_tensor(small.labels)[chosen], generator=torch.Generator().manual_seed(3),
    ).double()  # fmt: skip
    assert found["bpd"] == pytest.approx(expected.mean().item(), abs=1e-5)
    assert found["sd"] == pytest.approx(expected.std().item(), abs=1e-5)
    assert 0 < found["halved"] < 1 and found["seconds"] > 0
    assert es.bits("vp", seed=4, n=12, steps=6)["bpd"] != found["bpd"]
    # in its own clothes it is the same, in others nearly
    assert es.bits("vp", seed=3, n=12, steps=6, dress="vp")["bpd"] == pytest.approx(found["bpd"], abs=1e-6)
    other = es.bits("vp", seed=3, n=12, steps=6, dress="subvp")["bpd"]
    assert other != found["bpd"] and other == pytest.approx(found["bpd"], abs=0.3)


def test_numbers_are_recorded_once_measured(repository, small, monkeypatch):
    asked = []
    monkeypatch.setattr(es, "plans", lambda: iter([Plan("vp_sde", "mnist", ("mnist-vp",), (1, 2, 3), "ancestral", 4)]))

    def evaluated(plan, folder, progress, modules):
        asked.append((plan.name, modules))
        return [{"fd": 1.0 * k, "accuracy": 0.9, "nearest": 1.0, "kid": 0.0, "seconds": 1.0} for k in (1, 2, 3)]

    monkeypatch.setattr(es, "evaluate", evaluated)
    monkeypatch.setattr(es, "load", lambda name: asked.append((name, None)))
    counted = []

    def bits(process, seed, dress=None):
        counted.append((process, seed, dress))
        return {"bpd": 1.0 + seed / 10, "sd": 0.3, "halved": 0.001, "seconds": 2.0}

    monkeypatch.setattr(es, "bits", bits)
    for process in es.PROCESSES:
        datasets.write_atomic(repository / "data" / "checkpoints" / f"mnist-{process}.safetensors", process.encode())
    es.record_score_sde(progress=False)
    found = load_chapter(repository / "data/results/full/ch07.json")
    assert found.keys() == {
        *(f"ch07.{part}_mnist_vp_sde" for part in ("fd", "accuracy", "nearest")),
        *(f"ch07.bpd_mnist_{process}" for process in (*es.PROCESSES, "subvp_as_vp")),
    }
    fd, bpd = found["ch07.fd_mnist_vp_sde"], found["ch07.bpd_mnist_ve"]
    assert (fd.value, fd.n, fd.seeds, fd.profile) == (2.0, 5000, (1, 2, 3), "full")
    assert (bpd.value, bpd.unit, bpd.extra["halved"]) == (pytest.approx(1.2), "bits/dim", 0.001)
    assert fd.run["hashes"]["modules"] == freshness.module_hashes(es.SDE_MODULES)
    assert asked == [(f"mnist-{p}", None) for p in es.PROCESSES] + [("vp_sde", es.SAMPLE_MODULES)]
    assert len(counted) == 12 and counted[-1] == ("subvp", 3, "vp")
    es.record_score_sde(progress=False)  # bits are not measured again
    assert len(counted) == 12
    with pytest.raises(RuntimeError, match="the code was changed while it was evaluated"):
        hashes = iter(("one", "other"))
        monkeypatch.setattr(es, "modules_hash", lambda names: next(hashes, "other"))
        monkeypatch.setattr(es, "kept_bits", lambda *given: bits("vp", 1))
        es.record_score_sde(progress=False)


def test_a_plan_is_a_frozen_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        next(es.plans()).n = 3
