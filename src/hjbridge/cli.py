"""The command line: `hjbridge run | check | claims | results | cite | data | train | evaluate | normalise | version`.

Everything heavy is imported inside the command that needs it, so that help appears at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hjbridge.data import State

app = typer.Typer(
    help="Run, check and cite the book's numbers.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
data_app = typer.Typer(help="The data sets: list them, fetch the full ones, verify every byte.", no_args_is_help=True)
app.add_typer(data_app, name="data")

PROFILE = Annotated[str, typer.Option(help="Size of the run: smoke, book, full or paper.")]


def table(heads: tuple[str, ...], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under heads; long cells are wrapped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    printed = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        printed.add_row(*(Text(cell) for cell in row))
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(printed)


@app.command()
def run(
    chapter: Annotated[list[str] | None, typer.Option(help="Chapter, such as 05; may be repeated; none: all.")] = None,
    profile: PROFILE = "book",
    seed: Annotated[int, typer.Option(help="Seed of every chapter.")] = 0,
    jobs: Annotated[int, typer.Option(help="Chapters at a time.")] = 2,
    stage: Annotated[Path | None, typer.Option(help="Staging folder, from which a site can be rendered.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Make the outcome the committed record.")] = False,
) -> None:
    """Execute chapters afresh in a staging folder and judge their claims."""
    from hjbridge.ledger import runner
    from hjbridge.ledger.progress import Lines

    chapters = list(runner.chosen(chapter or []))
    folder = runner.run(chapters, profile=profile, seed=seed, jobs=jobs, folder=stage, record=record, progress=Lines())
    if chapters and (judged := runner.staged_claims(folder, chapters)):
        table(("claim", "verdict", "our number"), [(v.id, v.verdict, v.ours or v.reason) for v in judged])
    typer.echo(f"executed notebooks and results: {folder}" + (" (now the record)" if record else ""))


@app.command()
def check(
    again: Annotated[
        Path | None, typer.Option(help="Folder with results of a later run, to be compared with the record.")
    ] = None,
) -> None:
    """Tell whether every record and checkpoint still belongs to the code of today."""
    from hjbridge.ledger import checks

    findings = checks.check_all() + ([] if again is None else checks.check_repeated(again))
    for finding in findings:
        typer.secho(f"{finding.level}: {finding}", fg="red" if finding.level == "error" else "yellow")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
    typer.echo("the record is fresh" if not findings else "no error")


@app.command()
def claims(id: Annotated[str | None, typer.Argument(help="One claim, such as C31; none: all.")] = None) -> None:
    """Show the claims under test with the verdicts that the record gives."""
    from hjbridge.ledger.claims import cited, find_claim, load_claims
    from hjbridge.ledger.results import result
    from hjbridge.ledger.verdicts import ClaimError, status

    rows, failed = [], []
    for claim in [find_claim(id)] if id else load_claims().values():
        try:
            found = status(claim, result)
            rows.append((claim.id, claim.chapter, claim.claim, found.verdict, found.ours or found.reason, cited(claim)))
        except ClaimError as error:
            failed.append(str(error))
            rows.append((claim.id, claim.chapter, claim.claim, "FAILS", "see below", cited(claim)))
    table(("id", "chapter", "claim", "verdict", "our number", "source"), rows)
    if id:
        typer.echo(f"\nCorrect: {find_claim(id).correct}\nChecked: {find_claim(id).checked}")
    if failed:
        raise ClaimError("\n".join(failed))


@app.command()
def results(chapter: Annotated[str | None, typer.Argument(help="Chapter, such as 05; none: all.")] = None) -> None:
    """List the recorded numbers."""
    from hjbridge.ledger.files import chapter_name
    from hjbridge.ledger.results import all_results

    wanted = "ch" if chapter is None else f"ch{chapter_name(chapter)}"
    found = {id: r for id, r in all_results().items() if id.startswith(wanted)}
    if not found:
        typer.echo("nothing is recorded; make a record with `make record CH=05`")
        return
    table(("id", "value", "protocol"), [(id, r.text(), r.protocol or "") for id, r in found.items()])


@app.command()
def cite(
    id: Annotated[str | None, typer.Argument(help="A result, such as ch05.prior_kl_third; none: the book.")] = None,
    form: Annotated[str, typer.Option("--format", help="bibtex or plain.")] = "plain",
) -> None:
    """Tell how to cite the book, or one of its numbers with protocol, commit and address."""
    from hjbridge.ledger import cite as citing

    if form not in ("bibtex", "plain"):
        raise ValueError(f"format must be bibtex or plain, got {form!r}")
    typer.echo(citing.bibtex(id) if form == "bibtex" else citing.plain(id))


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="Recipe; `hjbridge train list` shows them.")],
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write; none: data/checkpoints/NAME.safetensors.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Your own images: a folder of pictures, or an npz file.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Pixels on a side, to which the pictures of a folder are brought; none: kept.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, instead of the recipe's.")] = None,
    device: Annotated[str, typer.Option(help="Where to train: cpu or cuda.")] = "cpu",
    resume: Annotated[bool, typer.Option(help="Go on from an interrupted run.")] = True,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare what was trained, at --out, with the committed checkpoint.")
    ] = False,
) -> None:
    """Train a checkpoint by its recipe; an interrupted run goes on where it stopped."""
    import dataclasses

    from hjbridge import data
    from hjbridge import train as training
    from hjbridge.recipes import RECIPES

    if name == "list":
        rows = [(name, r.data, r.network, f"{r.steps:,}") for name, r in RECIPES.items()]
        table(("recipe", "data", "network", "steps"), rows)
        return
    if name not in RECIPES:
        raise ValueError(f"name must be one of {', '.join(RECIPES)}, got {name!r}")
    if images is None and size is not None:
        raise ValueError(f"size goes with --images, got {size} without")
    own = None if images is None else data.from_files(images, size)
    changes: dict[str, Any] = {k: v for k, v in (("steps", steps), ("seed", seed)) if v is not None}
    changes |= {} if own is None else {"data": own.name, "full": False}
    committed = data.root() / "checkpoints" / f"{name}.safetensors"
    if out is None and (changes or verify):
        raise ValueError("out must name a file with --images, --steps, --seed or --verify, for the committed one stays")
    target = out or committed
    if target.suffix != ".safetensors":
        raise ValueError(f"out must end in .safetensors, got {target}")
    if not resume:
        Path(f"{target}.state").unlink(missing_ok=True)
    training.train(dataclasses.replace(RECIPES[name], **changes), own, out=target, device=device)
    typer.echo(f"wrote {target}")
    if verify:
        typer.echo(compared(target, committed))


def compared(new: Path, old: Path) -> str:
    """How far two checkpoints are apart, in words."""
    from hjbridge.score.checkpoint import read

    (mine, _), (theirs, _) = read(new), read(old)
    if mine.keys() != theirs.keys():
        raise ValueError(f"{new} must hold the tensors of {old}")
    if apart := max((mine[k].double() - theirs[k].double()).abs().max().item() for k in mine):
        return f"differs from {old.name} by at most {apart:.3g} (another processor rounds differently)"
    return f"identical to {old.name}"


@app.command()
def evaluate(
    name: Annotated[list[str] | None, typer.Argument(help="digits, mnist, fashion-mnist; none: all.")] = None,
) -> None:
    """Measure the committed checkpoints at full size, for hours, and put the numbers on record."""
    import torch

    from hjbridge.evaluate import record_plans

    torch.set_num_threads(1)
    record_plans(name or [])


@app.command()
def normalise(
    files: Annotated[list[Path], typer.Argument(help="Notebooks.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if a notebook is not in its fixed form.")
    ] = False,
) -> None:
    """Bring notebooks to the form in which they are committed."""
    from hjbridge.ledger.notebook import normalise_file

    changed = [path for path in files if normalise_file(path, check=check)]
    for path in changed:
        typer.echo(f"{path} {'is not in its fixed form: run `hjbridge normalise` on it' if check else 'rewritten'}")
    if changed and check:
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    from hjbridge.ledger.machine import package_version

    typer.echo(package_version())


@data_app.command("list")
def data_list() -> None:
    """Show every data set, embedded and full, and whether it is here; what is here is verified byte by byte."""
    from hjbridge import data

    states(data.overview())


@data_app.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="mnist, fashion-mnist or cifar10.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder or archive with the files, instead of the network.")
    ] = None,
) -> None:
    """Bring a full data set into the user's cache and verify it: from the network, or from a folder or archive."""
    from hjbridge import data

    typer.echo(f"verified: {data.fetch(name, source)}")


@data_app.command("verify")
def data_verify() -> None:
    """Verify every data set and checkpoint that is here; fail if one is harmed."""
    from hjbridge import data

    found = data.verify()
    states(found)
    if any(entry.harmed for entry in found):
        raise typer.Exit(1)


def states(found: Sequence[State]) -> None:
    """Print the states of data sets and checkpoints, then what is wrong with each that is harmed."""
    rows = [(s.name, s.kind, s.holds, "HARMED, see below" if s.harmed else s.state) for s in found]
    table(("name", "kind", "holds", "state"), rows)
    for entry in found:
        if entry.harmed:
            typer.secho(f"error: {entry.name} ({entry.kind}): {entry.state}", fg="red", err=True)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: errors that the user can mend are told in one line, without a traceback."""
    try:
        return app(args=arguments)
    except (ValueError, OSError, RuntimeError, ArithmeticError, AssertionError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
