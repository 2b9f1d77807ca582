"""Quality under one protocol, and the long evaluations: what they measure, keep, and put on record."""

import dataclasses
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny import MLP, UNET, call, run

from hjbridge import data as datasets
from hjbridge.ledger import LedgerError, checks, freshness, record, session
from hjbridge.ledger.files import Lock
from hjbridge.ledger.results import ID, load_chapter
from hjbridge.ledger.runner import full_record
from hjbridge.metrics import classifier, features, frechet_distance, kid
from hjbridge.score import load, time_grid
from hjbridge.score.checkpoint import read
from hjbridge.sde.processes import VP
from hjbridge.training import evaluate as ev
from hjbridge.training.evaluate import Plan, Quality, draw, proportional_labels, quality, quality_of, unfinished

SAMPLED = Plan("3", "digits", ("digits",), (1, 2, 3), "dpmpp2m", 3, n=20, full=False)
REAL = Plan("real", "digits", ("digits",), (1, 2, 3, 4), "real", n=30, full=False)
SHOES = Plan("7", "fashion-mnist", ("fashion-mnist",), (1, 2, 3), "sde_dpmpp2m", 7, n=40, full=False)
DATA = Path(__file__).parents[3] / "data"


class Known:
    """D(x, t, y) = y/10 + pull x, and -1 + pull x without a label; remembers its calls."""

    process, shape = VP(), (1, 2, 2)

    def __init__(self, pull=0.0):
        self.pull, self.calls = pull, []

    def __call__(self, x, t, label):
        self.calls.append((x, float(t.flatten()[0]), label))
        level = torch.full((len(x),), -1.0) if label is None else label / 10
        return level[:, None, None, None] + self.pull * x

    def to_pixels(self, x):
        return x


@pytest.fixture(scope="module")
def digits():
    """Pixels and labels of both splits."""
    return {s: (i.pixels(), torch.from_numpy(i.labels)) for s in datasets.SPLITS for i in [datasets.load("digits", s)]}


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Measure (7, seed^2, seed/2, 1/seed) of files in the place of checkpoints; returns the list of what was asked."""
    asked, data = [], ("digits", "fashion-mnist")
    for name in (*data, *(f"classifier-{which}-{k}" for which in data for k in ev.JUDGES)):
        datasets.write_atomic(tmp_path / "repository/data/checkpoints" / f"{name}.safetensors", name.encode())
    shutil.copytree(DATA / "fashion-mnist", tmp_path / "repository/data/fashion-mnist")

    def measure(*arguments, seed, n, full, progress=False, settings=None):
        asked.append((*arguments, *(settings or {}).items(), n, seed, full))
        return Quality(7.0, seed**2, seed / 2, 1 / seed)

    monkeypatch.setenv("HJBRIDGE_ROOT", str(tmp_path / "repository"))
    for name, stub in (("quality_of", measure), ("real_quality", measure), ("load", lambda name: f"denoiser {name}")):
        monkeypatch.setattr(ev, name, stub)
    return asked


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with claims and nothing else; the kernels that `setup` chooses are given up again."""
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True, exist_ok=True)
    shutil.copy(DATA / "claims.yml", root / "data")
    monkeypatch.setenv("HJBRIDGE_ROOT", str(root))
    yield root
    session.close_session()
    torch.use_deterministic_algorithms(False)


def test_labels_are_sorted_and_in_the_proportions_asked_for(digits):
    for n in (10, 50, 100, 400):
        found = proportional_labels(torch.tensor([3] * 20 + [0] * 50 + [1] * 30), n)
        assert found.tolist() == [0] * (n // 2) + [1] * (3 * n // 10) + [3] * (n // 5)
    labels = digits["train"][1]
    shares = proportional_labels(labels, 5000).bincount() / 5000 - labels.bincount() / len(labels)
    assert shares.abs().max() <= 1 / 5000


@pytest.mark.parametrize(("rule", "guidance"), [("dpmpp2m", 0.0), ("dpmpp2m", 1.5), ("sde_dpmpp2m", -0.5)])
def test_each_sample_is_drawn_for_its_label_with_guidance(rule, guidance):
    labels = torch.tensor([4, 1, 9, 1, 0, 7, 7])
    pixels = draw(Known(), labels, rule, 4, batch=3, guidance=guidance)
    expected = (1 + guidance) * labels / 10 + guidance  # at t = 0 a sample is what the denoiser says
    torch.testing.assert_close(pixels, expected[:, None, None, None].expand(7, 1, 2, 2), rtol=0, atol=1e-5)


def test_noise_grid_and_batches_are_those_asked_for():
    denoiser, settings = Known(0.5), {"kind": "logsnr", "ratio_max": 20.0, "ratio_min": 0.1}
    draw(denoiser, torch.zeros(10, dtype=torch.int64), "dpmpp2m", 3, seed=5, batch=4, settings=settings)
    grid = time_grid(VP(), 3, **settings)
    assert [len(x) for x, _, _ in denoiser.calls] == [4] * 6 + [2] * 3
    torch.testing.assert_close([t for _, t, _ in denoiser.calls], grid[:-1].tolist() * 3, rtol=1e-6, atol=0)
    generator = torch.Generator().manual_seed(5)
    for first, size in ((0, 4), (3, 4), (6, 2)):
        assert torch.equal(denoiser.calls[first][0], VP().prior_sample((size, 1, 2, 2), generator, t=grid[0]))


@pytest.mark.parametrize("rule", ["dpmpp2m", "ancestral"])
def test_samples_depend_on_the_seed_alone(rule):
    labels, before = torch.zeros(8, dtype=torch.int64), torch.get_rng_state()
    one = draw(Known(0.5), labels, rule, 3, seed=1, batch=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draw(Known(0.5), labels, rule, 3, seed=1, batch=4), one)
    assert not torch.isclose(draw(Known(0.5), labels, rule, 3, seed=2, batch=4), one).any()
    assert not torch.isclose(one[:4], one[4:]).any()


def test_real_images_are_good_copies_are_told_and_black_images_are_bad(digits):
    real, labels = digits["test"]
    whole, black = quality(real, labels, "digits"), quality(torch.zeros(60, 1, 8, 8), labels[:60], "digits")
    assert whole.nearest == 1.0 and 0.985 <= whole.accuracy < 1 and whole.fd < 5
    assert black.accuracy < 0.3 and black.fd > 20 * whole.fd and black.kid > 20 * whole.kid and black.nearest > 1.5
    assert quality(digits["train"][0][:20], digits["train"][1][:20], "digits").nearest == 0.0


def test_every_field_is_the_mean_over_three_classifiers(digits):
    (train, _), (test, labels) = digits.values()
    noise = 0.2 * torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels, labels = (test[:40] + noise).clamp(0, 1), labels[:40]
    fd, mmd, right = [], [], []
    for judge in (classifier("digits", k) for k in range(3)):
        found = features(judge, pixels)
        fd.append(frechet_distance(found, judge.reference))
        mmd.append(kid(found, features(judge, train)).value)
        right.append((judge.head(found).argmax(1) == labels).double().mean().item())
    assert len(set(fd)) == len(set(mmd)) == 3 and 0.3 < min(right) < max(right) < 1
    near, novelty = (torch.cdist(x.flatten(1), train.flatten(1)).amin(1).mean().item() for x in (pixels, test))
    expected = Quality(sum(fd) / 3, sum(mmd) / 3, sum(right) / 3, near / novelty)
    assert dataclasses.astuple(quality(pixels, labels, "digits")) == pytest.approx(dataclasses.astuple(expected), 1e-5)


def test_real_images_are_drawn_without_replacement_by_seed(digits, monkeypatch):
    every, whole = ev.real_quality("digits", n=500, seed=3), quality(*digits["test"], "digits")
    assert dataclasses.astuple(every) == pytest.approx(dataclasses.astuple(whole), rel=1e-4, abs=1e-6)
    monkeypatch.setattr(ev, "quality", lambda pixels, labels, name, full: (pixels, labels, full))
    one, labels, _ = ev.real_quality("digits", n=60, seed=1)
    (again, *_), (other, _, full) = (ev.real_quality("digits", n=60, seed=s, full=s == 2) for s in (1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and full
    place = torch.cdist(one.flatten(1), digits["test"][0].flatten(1)).argmin(1)
    assert len(place.unique()) == 60 and (place.diff() < 0).any()
    assert torch.equal(one, digits["test"][0][place]) and torch.equal(labels, digits["test"][1][place])


def test_quality_of_measures_what_draw_draws(digits, monkeypatch):
    denoiser, options = load("digits"), {"guidance": 0.5, "batch": 16}
    labels = proportional_labels(digits["train"][1], 30)
    expected = quality(draw(denoiser, labels, "ddim", 3, seed=4, **options), labels, "digits")
    assert quality_of(denoiser, "digits", "ddim", 3, n=30, seed=4, **options) == expected
    monkeypatch.setattr(ev, "quality", lambda pixels, labels, name, full: (len(pixels), labels.tolist(), name, full))
    assert quality_of(Known(), "digits", "ddim", 2, n=3, seed=0, full=True) == (3, [1, 5, 8], "digits", True)
    asked, load_images = [], datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, split, full: asked.append(full) or load_images(name, split))
    assert len(ev.reference.__wrapped__("digits", True).train) == 1297 and asked == [True, True]


@pytest.mark.parametrize("recipe", [MLP, UNET], ids=["mlp", "unet"])
def test_an_unfinished_training_has_its_averaged_weights_until_it_ends(tmp_path, data, recipe):
    state = run(recipe, data, out := tmp_path / "own.safetensors", stop_after=recipe.steps)
    found, (tensors, header) = unfinished(state), read(state)
    weights = list(found.parameters())
    assert found.header == header and header["step"] == recipe.steps
    assert not found.training and not any(weight.requires_grad for weight in weights)
    assert all(torch.equal(weight, tensors[f"average.{i}"]) for i, weight in enumerate(weights))
    assert not any(torch.equal(weight, tensors[f"weight.{i}"]) for i, weight in enumerate(weights))
    # a run that has nothing left to do writes these weights as its checkpoint
    finished, x, t, label = load(run(recipe, data, out)), torch.randn(3, 1, 4, 4), torch.tensor(0.4), torch.arange(3)
    assert torch.equal(found(x, t, label), finished(x, t, label))
    with pytest.raises(FileNotFoundError, match=r"own\.safetensors\.state is missing: train on, or wait for the next"):
        unfinished(state)


def test_a_plan_pairs_checkpoints_with_seeds_and_tells_its_protocol():
    assert list(SAMPLED.runs()) == [("digits", 1), ("digits", 2), ("digits", 3)]
    several = dataclasses.replace(SAMPLED, checkpoints=("a", "b", "c"), n=5000, settings={"rho": 3.0})
    assert list(several.runs()) == [("a", 1), ("b", 2), ("c", 3)]
    assert list(dataclasses.replace(several, seeds=(5,)).runs()) == [("a", 5), ("b", 5), ("c", 5)]
    with pytest.raises(ValueError, match="zip"):
        list(dataclasses.replace(several, seeds=(1, 2)).runs())
    drawn = "{} samples without guidance by dpmpp2m with 3 evaluations{}; one {}"
    against = "; against the statistics of all training images, mean over the features of 3 classifiers"
    assert SAMPLED.protocol() == drawn.format("20", "", "training seed") + against
    assert several.protocol() == drawn.format("5,000", ", rho = 3", "sampling seed for each training seed") + against
    assert "with 7 evaluations, extrapolation = 0.8; one" in dataclasses.replace(SHOES, extrapolation=0.8).protocol()
    assert REAL.protocol() == "30 real test images, drawn anew for each seed" + against


def test_the_plans_can_be_recorded():
    ids = [f"ch06.fd_{plan.data.replace('-', '_')}_{plan.name}" for plan in ev.PLANS]
    assert len(set(ids)) == len(ids) and all(map(ID.fullmatch, ids))
    for plan in ev.PLANS:
        assert plan.n == 5000 and plan.full == (plan.data != "digits") and len(set(plan.runs())) >= 3 + 2 * plan.full


def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path, measured, monkeypatch):
    monkeypatch.setattr(ev.time, "process_time", iter([10.0, 12.5, 20.0, 30.0, 31.0, 40.0, 44.0]).__next__)
    monkeypatch.setattr(ev, "load", {"digits": "denoiser digits"}.pop)  # KeyError at the second run
    with pytest.raises(KeyError):
        ev.evaluate(SAMPLED, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 1
    monkeypatch.setattr(ev, "load", lambda name: f"denoiser {name}")
    found = ev.evaluate(SAMPLED, tmp_path / "kept")
    assert measured == [("denoiser digits", "digits", "dpmpp2m", 3, 20, seed, False) for seed in (1, 2, 3)]
    assert [run["seconds"] for run in found] == [2.5, 1.0, 4.0]
    assert found[2] == {"fd": 7.0, "kid": 9, "accuracy": 1.5, "nearest": 1 / 3, "seconds": 4.0}
    assert ev.evaluate(SAMPLED, tmp_path / "kept") == found and len(measured) == 3


def test_another_checkpoint_classifier_code_or_size_is_measured_anew(tmp_path, measured, monkeypatch):
    changes = ({}, {"n": 21}, {"steps": 4}, {"settings": {"rho": 3.0}}, {"rule": "sde_dpmpp2m", "extrapolation": 0.5})

    def count():
        for plan in (*(dataclasses.replace(SAMPLED, **change) for change in changes), REAL):
            ev.evaluate(plan, tmp_path / "kept", progress=False)
        assert len(list((tmp_path / "kept").iterdir())) == len(measured)
        return len(measured)

    assert count() == 19 and measured[15:] == [("digits", 30, seed, False) for seed in (1, 2, 3, 4)]
    assert measured[12][2].keywords == {"extrapolation": 0.5}
    assert measured[9] == ("denoiser digits", "digits", "dpmpp2m", 3, ("rho", 3.0), 20, 1, False)
    for name, total in (("digits", 34), ("classifier-digits-1", 53)):  # real images do not depend on the first
        (datasets.root() / "checkpoints" / f"{name}.safetensors").write_text("trained on")
        assert count() == total
    monkeypatch.setattr(ev, "modules_hash", lambda names: {ev.MODULES: "0123456789"}[names])
    assert count() == 72


def test_plans_are_put_on_record_and_mended_by_the_same_command(repository, measured, monkeypatch):
    monkeypatch.setattr(ev, "PLANS", (REAL, SHOES))
    ev.record_plans(["fashion-mnist"], progress=False)
    path = repository / "data/results/full/ch06.json"
    names = {f"ch06.{field}_fashion_mnist_7" for field in ("fd", "kid", "accuracy", "nearest")}
    assert load_chapter(path).keys() == names and {ask[1] for ask in measured} == {"fashion-mnist"}
    found = load_chapter(path)["ch06.kid_fashion_mnist_7"]
    assert (found.n, found.seeds, found.protocol, found.profile) == (40, (1, 2, 3), SHOES.protocol(), "full")
    assert (found.value, found.stderr, found.extra["sd"]) == pytest.approx((14 / 3, 7 / 3, 7 / 3**0.5))  # of 1, 4, 9
    assert found.run["hashes"]["modules"] == freshness.module_hashes(ev.MODULES)
    assert checks.check_full(repository) == []
    with monkeypatch.context() as later:
        later.setattr(freshness, "stale_modules", lambda recorded: ["hjbridge.metrics.distances"])
        stale = checks.check_full(repository)
    assert len(stale) == 4 and {(f.level, f.mend) for f in stale} == {("warning", "hjbridge evaluate fashion-mnist")}
    ev.record_plans(progress=False)  # all: what is on record stays, what is measured is not measured again
    assert load_chapter(path).keys() - names == {n.replace("fashion_mnist_7", "digits_real") for n in names}
    assert len(measured) == 3 + 4 and session.current() is None and "HJBRIDGE_RESULTS" not in os.environ


def test_the_command_measures_the_committed_checkpoint(repository, monkeypatch):
    monkeypatch.setattr(ev, "PLANS", (SAMPLED, REAL, SHOES))
    for path in (DATA / "checkpoints").glob("*digits*"):
        datasets.write_atomic(repository / "data/checkpoints" / path.name, path.read_bytes())
    assert call("evaluate", "digits") == 0
    found = load_chapter(repository / "data/results/full/ch06.json")
    assert len(found) == 8 and found["ch06.accuracy_digits_real"].value > 0.95
    values = [quality_of(load("digits"), "digits", "dpmpp2m", 3, n=20, seed=seed).fd for seed in SAMPLED.seeds]
    assert found["ch06.fd_digits_3"].value == pytest.approx(sum(values) / 3, rel=1e-6)


def test_an_unknown_name_is_refused_before_anything_is_measured(repository, measured, capsys):
    assert call("evaluate", "digits", "cifar10") == 2 and measured == []
    assert (
        "error: name must be one of digits, mnist, fashion-mnist, score-sde, got 'cifar10'" in capsys.readouterr().err
    )


def test_two_at_once_are_refused_and_nothing_measured_is_lost(repository, measured, monkeypatch):
    monkeypatch.setattr(ev, "PLANS", (REAL,))
    with full_record(6, ev.MODULES):
        with pytest.raises(LedgerError, match=f"chapter 06 is in use by process {os.getpid()}: wait until it ends"):
            ev.record_plans(progress=False)
        record("ch06.other", 1.0)  # the first goes on
    ev.record_plans(progress=False)
    assert len(measured) == 4 and len(load_chapter(repository / "data/results/full/ch06.json")) == 5


@pytest.mark.parametrize("before", [None, "elsewhere"])
def test_a_full_record_leaves_the_process_as_it_was(repository, monkeypatch, before):
    if before:
        monkeypatch.setenv("HJBRIDGE_RESULTS", before)
    for error in (nullcontext(), pytest.raises(RuntimeError, match="in between")):
        with error, full_record("06", ()) as profile:
            assert profile.name == "full" and os.environ["HJBRIDGE_RESULTS"] == str(repository / "data" / "results")
            if not isinstance(error, nullcontext):
                raise RuntimeError("in between")
        assert os.environ.get("HJBRIDGE_RESULTS") == before and session.current() is None
        Lock(repository / "_build" / "chapter-06.lock", "the record").acquire().release()
