"""Commands that make and measure weights: train, evaluate."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from hjbridge import store
from hjbridge.cli import names
from hjbridge.cli.terminal import Usage, interruptible, say, table


def train(
    name: Annotated[
        str,
        typer.Argument(
            help="Recipe; `hjbridge train list` shows them.", autocompletion=names.completing(names.recipes)
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write; none: data/checkpoints/NAME.safetensors.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Your own images: a folder of pictures, or an npz file.", exists=True)
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Pixels on a side, to which the pictures of a folder are brought; none: kept."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the recipe's.")] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Where to train: cpu, cuda or cuda:N.", autocompletion=names.completing(lambda: ("cpu", "cuda"))
        ),
    ] = "cpu",
    resume: Annotated[bool, typer.Option(help="Go on from an interrupted run, or begin anew.")] = True,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare what was trained, at --out, with the committed checkpoint.")
    ] = False,
) -> None:
    """Train a checkpoint by its recipe; an interrupted run goes on where it stopped."""
    names.seed(seed)
    names.at_least(1, size=size, steps=steps)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise Usage(f"device must be cpu, cuda or cuda:N, got {device!r}")
    if images is None and size is not None:
        raise Usage(f"size goes with --images, got {size} without")
    if out is not None and out.suffix != ".safetensors":
        raise Usage(f"out must end in .safetensors, got {out}")
    target = out
    with interruptible(lambda: left_of_training(target, resume)):
        import torch

        from hjbridge import data, training
        from hjbridge.ledger import files
        from hjbridge.metrics.classifiers import CLASSIFIERS
        from hjbridge.metrics.features import SEEDS, make_classifier
        from hjbridge.score import release
        from hjbridge.training import RECIPES

        classifiers = {f"classifier-{of}-{k}": (of, k) for of in CLASSIFIERS for k in SEEDS}
        if name == "list":
            rows = [(name, r.data, r.network, f"{r.steps:,} steps") for name, r in RECIPES.items()]
            rows += [(k, of, "classifier", f"{CLASSIFIERS[of].epochs} epochs") for k, (of, _) in classifiers.items()]
            return table(("recipe", "data", "network", "length"), rows)
        name = names.meant("name", name, [*RECIPES, *classifiers])
        changes: dict[str, Any] = {k: v for k, v in (("steps", steps), ("seed", seed)) if v is not None}
        if name in classifiers and (changes or images or device != "cpu"):
            raise Usage(f"{name} is trained by its recipe, without --images, --steps, --seed or --device")
        if out is None and (changes or images or verify):
            raise Usage("out must name a file with --images, --steps, --seed or --verify, for the committed one stays")
        if out is None and store.repository() is None:
            raise Usage(f"out must name a file where there is no repository; or {store.CLONE}")
        if device != "cpu" and not torch.cuda.is_available():
            raise ValueError(f"device must be cpu, for PyTorch finds no GPU here, got {device!r}")
        if out is None:
            files.root()  # HJBRIDGE_ROOT may name any folder
        torch.set_num_threads(1)  # as in `make train`: a run goes on only to the same last digits
        committed = release.find(name) if verify else None
        own = None if images is None else data.from_files(images, size)
        changes |= {} if own is None else {"data": own.name, "full": False}
        target = out or store.root() / "checkpoints" / f"{name}.safetensors"
        if name in classifiers:
            make_classifier(*classifiers[name], target)
        else:
            if not resume:
                Path(f"{target}.state").unlink(missing_ok=True)
            training.train(dataclasses.replace(RECIPES[name], **changes), own, out=target, device=device)
    enter(target)
    say(f"wrote {target}")
    if committed is not None:
        say(compared(target, committed))


def left_of_training(target: Path | None, resume: bool) -> str:
    """What an interrupted training leaves, and how to go on."""
    from hjbridge.ledger.freshness import safetensors_metadata

    state = Path(f"{target}.state")
    if not state.is_file():
        return "no state was saved yet; the same command begins again"
    same = "the same command" if resume else "the same command without --no-resume"
    return f"{state} holds the run after {safetensors_metadata(state)['step']:,} steps; {same} goes on from there"


def enter(path: Path) -> None:
    """Renew what the repository knows of a checkpoint by its hash, if it is one of the repository's."""
    from hjbridge.ledger import seals
    from hjbridge.score import release

    home = store.repository()
    if home is not None and path.resolve().parent == (home / "data" / "checkpoints").resolve():
        release.enter(path, home)
        seals.renew(path, home)


def compared(new: Path, old: Path) -> str:
    """How far two checkpoints are apart, in words."""
    from hjbridge.score.checkpoint import read

    (mine, _), (theirs, _) = read(new), read(old)
    if mine.keys() != theirs.keys():
        raise ValueError(f"{new} must hold the tensors of {old}")
    if apart := max((mine[k].double() - theirs[k].double()).abs().max().item() for k in mine):
        return f"differs from {old.name} by at most {apart:.3g} (processors, and numbers of threads, round differently)"
    return f"identical to {old.name}"


def evaluate(
    name: Annotated[
        list[str] | None,
        typer.Argument(
            help="digits, mnist, fashion-mnist (chapter 06), score-sde (chapter 07); none: all.",
            autocompletion=names.completing(lambda: names.EVALUATED),
        ),
    ] = None,
) -> None:
    """Measure the committed checkpoints at full size, for hours, and put the numbers on record."""
    chosen = [names.meant("name", given, names.EVALUATED) for given in name or ()]
    with interruptible(lambda: "what is measured is kept in _build/evaluate; the same command measures the rest"):
        from hjbridge.ledger import files

        files.root()  # before torch is loaded, and before anything is fetched
        import torch

        from hjbridge.training.evaluate import record_plans
        from hjbridge.training.evaluate_sde import record_score_sde

        torch.set_num_threads(1)
        plain = [given for given in chosen if given != "score-sde"]
        if plain or not chosen:
            record_plans(plain)
        if "score-sde" in chosen or not chosen:
            record_score_sde()
