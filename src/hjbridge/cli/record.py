"""Commands on the record: run, pages, check, seal, claims, results, cite, normalise, version."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hjbridge.cli import names
from hjbridge.cli.terminal import Json, Usage, interruptible, print_json, say, table, well_used


def run(
    chapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Chapter, such as 05; may be repeated; none: all.", autocompletion=names.completing(names.chapters)
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="Size of the run: smoke, book, full or paper.", autocompletion=names.completing(names.profiles)
        ),
    ] = "book",
    seed: Annotated[int, typer.Option(help="Seed of every chapter.")] = 0,
    jobs: Annotated[int, typer.Option(help="Chapters at a time.")] = 2,
    stage: Annotated[Path | None, typer.Option(help="Staging folder, from which a site can be rendered.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Make the outcome the committed record.")] = False,
) -> None:
    """Execute chapters afresh in a staging folder and judge their claims."""
    from hjbridge.ledger import runner
    from hjbridge.ledger.progress import Lines

    names.seed(seed)
    names.at_least(1, jobs=jobs)
    chapters = [names.chapter(given, names.chapters()) for given in chapter or names.chapters()]
    size = names.meant("profile", profile, names.profiles())
    with interruptible(left_of_run), well_used():
        folder = runner.run(chapters, profile=size, seed=seed, jobs=jobs, folder=stage, record=record, progress=Lines())
    if chapters and (judged := runner.staged_claims(folder, chapters)):
        table(("claim", "verdict", "our number"), [(v.id, v.verdict, v.ours or v.reason) for v in judged])
    say(f"executed notebooks and results: {folder}" + (" (now the record)" if record else ""))


def left_of_run() -> str:
    """What an interrupted run leaves, and how to go on."""
    from hjbridge.ledger import files, stage

    if stage.journal(files.root()).is_file():
        return "the outcome was on its way into the record; the next `make record` puts the rest there first"
    return "the record is unchanged; the same command begins again"


def pages(
    page: Annotated[
        list[str] | None,
        typer.Argument(help="Page, such as quickstart; none: all.", autocompletion=names.completing(names.pages)),
    ] = None,
) -> None:
    """Run the programs on the pages and record what they print and draw."""
    from hjbridge.ledger import files
    from hjbridge.ledger import pages as shown

    known = shown.pages()
    for name in [names.meant("page", given, known) for given in page or known]:
        outputs = shown.record(known[name])
        drawn = sum(bool(output.pictures) for output in outputs)
        say(f"{shown.place(known[name]).relative_to(files.root())}: {len(outputs)} programs, pictures: {drawn}")


def check(
    again: Annotated[
        Path | None, typer.Option(help="Folder with results of a later run, to be compared with the record.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell whether every record and checkpoint belongs to the code of today, and is the one that was written."""
    from hjbridge.ledger import checks
    from hjbridge.ledger.again import check_repeated

    findings = checks.check_all() + ([] if again is None else check_repeated(again))
    if json:
        print_json([asdict(finding) for finding in findings])
    for finding in findings if not json else ():
        say(f"{finding.level}: {finding}", "red" if finding.level == "error" else "yellow")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)
    if not json:
        say("the record is fresh" if not findings else "no error")


def seal(
    paths: Annotated[list[Path], typer.Argument(help="data/claims.yml, checkpoints, data sets with their provenance.")],
) -> None:
    """Seal inputs that were made or edited by hand, after checking every other file; tell what has changed."""
    from hjbridge.ledger import review

    with well_used():
        told = review.seal(paths)
    say("\n".join(told) if told else "nothing has changed")


def claims(
    id: Annotated[
        str | None,
        typer.Argument(help="One claim, such as C31; none: all.", autocompletion=names.completing(names.claims)),
    ] = None,
    json: Json = False,
) -> None:
    """Show the claims under test with the verdicts that the record gives."""
    from hjbridge.ledger.claims import cited, find_claim, load_claims
    from hjbridge.ledger.results import result
    from hjbridge.ledger.verdicts import ClaimError, status

    found, failed = [], []
    for claim in [find_claim(id)] if id else load_claims().values():
        entry = {"id": claim.id, "chapter": claim.chapter, "claim": claim.claim, "source": cited(claim)}
        entry |= {"correct": claim.correct, "checked": claim.checked}
        try:
            judged = status(claim, result)
            entry |= {"verdict": judged.verdict, "ours": judged.ours or "", "reason": judged.reason}
        except ClaimError as error:
            failed.append(str(error))
            entry |= {"verdict": "FAILS", "ours": "", "reason": str(error)}
        found.append(entry)
    if json:
        print_json(found)
    else:
        rows = [(e["id"], e["chapter"], e["claim"], e["verdict"], _number(e), e["source"]) for e in found]
        table(("id", "chapter", "claim", "verdict", "our number", "source"), rows)
        if id:
            say(f"\nCorrect: {found[0]['correct']}\nChecked: {found[0]['checked']}")
    if failed:
        raise ClaimError("\n".join(failed))


def _number(entry: dict[str, str]) -> str:
    return "see below" if entry["verdict"] == "FAILS" else entry["ours"] or entry["reason"]


def results(
    chapter: Annotated[
        str | None,
        typer.Argument(help="Chapter, such as 05; none: all.", autocompletion=names.completing(names.chapters)),
    ] = None,
    json: Json = False,
) -> None:
    """List the recorded numbers."""
    from hjbridge.ledger.files import reading
    from hjbridge.ledger.results import all_results

    known = sorted({*names.chapters(), *(path.stem[2:] for path in reading().rglob("ch[0-9][0-9].json"))})
    wanted = known if chapter is None else [names.chapter(chapter, known)]
    found = {id: r for id, r in all_results().items() if id[2:4] in wanted}
    if json:
        print_json([r.entry() | {"id": id, "profile": r.profile, "text": r.text()} for id, r in found.items()])
    elif found:
        table(("id", "value", "protocol"), [(id, r.text(), r.protocol or "") for id, r in found.items()])
    else:
        say("nothing is recorded; make a record with `make record CH=05`")


def cite(
    id: Annotated[
        str | None,
        typer.Argument(
            help="A result, such as ch05.prior_kl_third; none: the book.",
            autocompletion=names.completing(names.results),
        ),
    ] = None,
    form: Annotated[
        str,
        typer.Option("--format", help="bibtex or plain.", autocompletion=names.completing(lambda: ("bibtex", "plain"))),
    ] = "plain",
) -> None:
    """Tell how to cite the book, or one of its numbers with protocol, commit and address."""
    from hjbridge.ledger import cite as citing

    if form not in ("bibtex", "plain"):
        raise Usage(f"format must be bibtex or plain, got {form!r}")
    say(citing.bibtex(id) if form == "bibtex" else citing.plain(id))


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
        say(f"{path} {'is not in its fixed form: run `hjbridge normalise` on it' if check else 'rewritten'}")
    if changed and check:
        raise typer.Exit(1)


def version() -> None:
    """Print the version."""
    from hjbridge.ledger.machine import package_version

    say(package_version())
