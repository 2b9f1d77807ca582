"""The directives `result-list` and `checkpoint-list`: every recorded number and every committed file of weights."""

from __future__ import annotations

import html
from collections import Counter
from pathlib import Path
from typing import Any

from docutils import nodes
from record_nodes import RecordDirective, badge, facts, filter_form, raw, table
from result_uses import used_in
from results_role import anchor, folder
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from hjbridge.ledger import Result, all_results
from hjbridge.ledger.checks import Finding, check_chapters, check_checkpoints, check_full
from hjbridge.ledger.freshness import safetensors_metadata

PAGE = "book/results"


def findings(env: BuildEnvironment) -> dict[str, list[Finding]]:
    """What is stale or was edited in the record of this build, by chapter (`chapter 05`), result or checkpoint."""
    root = Path(env.srcdir)
    found: dict[str, list[Finding]] = {}
    for finding in [*check_chapters(root), *check_full(root), *check_checkpoints(root)]:
        found.setdefault(finding.subject, []).append(finding)
    return found


def stale_note(found: list[Finding]) -> str:
    """A badge and the reason for something stale; empty if it is fresh."""
    return "".join(f"{badge('stale')} {html.escape(str(finding.problem))} " for finding in found)


class ResultList(RecordDirective):
    """Every number of the record with the protocol behind it."""

    def run(self) -> list[nodes.Node]:
        """List the record of this build by chapter."""
        for path in folder(self.env).rglob("ch*.json"):
            self.env.note_dependency(str(path))
        known, stale = all_results(folder(self.env)), findings(self.env)
        if not known:
            return [nodes.paragraph("", "Nothing is on record yet.")]
        sections: dict[str, nodes.section] = {}
        count = Counter(key[2:4] for key in known)
        for key, entry in sorted(known.items()):
            number = key[2:4]
            if number not in sections:
                title = f"Chapter {number}"
                heading = nodes.title("", title)
                sections[number] = nodes.section("", heading, ids=[f"chapter-{number}"], names=[title.lower()])
                self.state.document.note_implicit_target(sections[number])
                runs = {run_of(one): None for name, one in known.items() if name[2:4] == number}
                sections[number] += [nodes.paragraph("", run) for run in runs]
                if found := stale.get(f"chapter {number}"):
                    sections[number] += raw(f"<p>{stale_note(found)}</p>")
                words = f"{count[number]} numbers of chapter {number}" if count[number] > 1 else "1 number"
                sections[number] += raw(f'<details class="book-group"><summary>{words}</summary>')
            odd = stale.get(key, []) + ([] if "@" in key else stale.get(f"chapter {number}", []))
            sections[number] += self.detail(key, entry, odd)
        for section in sections.values():
            section += raw("</details>")
        menus = {"chapter": {number: f"{number} ({k})" for number, k in sorted(count.items())}}
        search = filter_form(".book-entry", "numbers", menus, search="in id, protocol, claim")
        return [search, *sections.values()]

    def detail(self, key: str, entry: Result, stale: list[Finding]) -> nodes.container:
        """Everything about one number."""
        box = self.entry(anchor(key))
        mark = badge("stale") if stale else ""
        text = html.escape(entry.text())
        seeds = entry.seeds if isinstance(entry.seeds, int) or not entry.seeds else ", ".join(map(str, entry.seeds))
        head = f'<code>{html.escape(key)}</code> {mark}<span class="book-value">{text}</span>'
        box += raw(
            f'<details><summary class="book-head" data-chapter="{key[2:4]}">{head}</summary>'
            + facts(
                [
                    ("Protocol", html.escape(entry.protocol or "")),
                    ("Unrounded", repr(entry.value) if isinstance(entry.value, float) and not entry.stderr else ""),
                    ("Samples", f"{entry.n:,}" if entry.n else ""),
                    ("Seeds", str(seeds or "")),
                    ("Reference", reference(entry)),
                    ("Claims", self.claims(entry)),
                    ("Run", f"profile {entry.profile}" if "@" in key else ""),
                    ("Stale", stale_note(stale) if "@" in key else ""),
                    ("Again", f"<code>{html.escape(again(key, entry))}</code>"),
                ]
            )
        )
        box += used_in(target=anchor(key))
        box += raw("</details>")
        return box

    def claims(self, entry: Result) -> str:
        """Links to the claims that a number speaks to."""
        page = self.env.app.builder.get_relative_uri(self.env.docname, "book/claims")
        return ", ".join(f'<a href="{page}#claim-{id.lower()}">{id}</a>' for id in entry.claims)


def reference(entry: Result) -> str:
    """What a number is held against, and how far it may be off."""
    if entry.reference is None:
        return f"within {entry.tolerance:g} of zero" if entry.tolerance is not None else ""
    return f"{entry.reference:.10g}" + (f" within {entry.tolerance:g}" if entry.tolerance is not None else "")


def run_of(entry: Result) -> str:
    """Profile, seed, time and versions of a run in one line."""
    parts = [f"Profile {entry.profile}", f"seed {entry.run.get('seed', 0)}"]
    if isinstance(seconds := entry.run.get("seconds"), int | float) and seconds >= 1:
        parts.append(f"{seconds:,.0f} s on {entry.run.get('cpu') or 'one core'}")
    return ", ".join(parts) + ": " + ", ".join(f"{name} {v}" for name, v in entry.run.get("versions", {}).items()) + "."


def again(key: str, entry: Result) -> str:
    """The command that makes a number anew."""
    chapter = key[2:4]
    if not key.endswith("@full"):
        return f"make chapter CH={chapter}"
    return str(entry.extra.get("command", f"hjbridge run --chapter {chapter} --profile full"))


class CheckpointList(RecordDirective):
    """The committed checkpoints: what they are, how long they took, whether the code behind them has changed."""

    def run(self) -> list[nodes.Node]:
        """List data/checkpoints of this build."""
        stale, rows = findings(self.env), []
        for path in sorted((Path(self.env.srcdir) / "data" / "checkpoints").glob("*.safetensors")):
            self.env.note_dependency(str(path))
            seconds = safetensors_metadata(path).get("seconds")
            spent = f"{seconds:,.0f} s" if isinstance(seconds, (int, float)) else ""
            state = stale_note(stale.get(f"checkpoint {path.stem}", [])) or badge("fresh")
            rows.append((f"<code>{html.escape(path.stem)}</code>", f"{path.stat().st_size / 1e6:.2f} MB", spent, state))
        if not rows:
            return [nodes.paragraph("", "No checkpoint is committed yet.")]
        return [table(("Checkpoint", "Size", "CPU time", "State"), rows)]


def outdated(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """The page is read again in every build: files of the record come and go."""
    return [PAGE] if PAGE in env.found_docs else []


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directives."""
    app.add_directive("result-list", ResultList)
    app.add_directive("checkpoint-list", CheckpointList)
    app.connect("env-get-outdated", outdated)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
