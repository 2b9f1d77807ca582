"""The directive `program-output`: what a program of a page prints and draws, from the record beside the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dark_figures import DARK, LIGHT
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from results_role import failed_pages
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from hjbridge.ledger import LedgerError
from hjbridge.ledger import pages as record


class ProgramOutput(Directive):
    """`{program-output} 1` below the first program of a page.

    If the program draws, the option `alt` describes the picture and the content is its caption.
    """

    required_arguments = 1
    option_spec = {"alt": directives.unchanged_required}  # noqa: RUF012
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Show the output; one that is missing, or older than its program, is an error."""
        env: BuildEnvironment = self.state.document.settings.env
        page = Path(env.doc2path(env.docname))
        env.note_dependency(str(record.place(page)))
        try:
            return self.show(page, int(self.arguments[0]))
        except (LedgerError, ValueError) as error:
            failed_pages(env).add(env.docname)
            return [self.state.document.reporter.error(f"program-output: {error}", line=self.lineno)]

    def show(self, page: Path, number: int) -> list[nodes.Node]:
        """The nodes of one output. Raises: LedgerError, ValueError."""
        outputs = record.recorded(page)
        if not 1 <= number <= len(outputs):
            raise ValueError(f"program must lie in 1 to {len(outputs)} on {page.name}, got {number}")
        output = outputs[number - 1]
        described = "alt" in self.options and bool(self.content)
        if bool(output.pictures) != described or (not output.pictures and self.content):
            needed = "needs `:alt:` and a caption" if output.pictures else "takes neither `:alt:` nor caption"
            draws = f"program {number} of {page.name} draws {'a' if output.pictures else 'no'} picture"
            raise ValueError(f"{draws}: {needed}")
        box = nodes.container(classes=["cell_output", "program-output", "mb-4"])
        if output.printed:
            box += nodes.literal_block(output.printed, output.printed, language="none", classes=["output", "stream"])
        if output.pictures:
            box += self.figure(record.pictures(page, number)[: len(output.pictures)])
        return [box]

    def figure(self, pictures: list[Path]) -> nodes.figure:
        """The picture, with its drawing for dark pages if there is one, and its caption."""
        figure, caption = nodes.figure(), nodes.Element()
        for path, classes in zip(pictures, (LIGHT, DARK) if len(pictures) > 1 else ([],), strict=True):
            load = {"loading": "lazy"} if classes is DARK else {}
            figure += nodes.image(uri=f"outputs/{path.name}", alt=self.options["alt"], classes=[*classes], **load)
        self.state.nested_parse(self.content, self.content_offset, caption)
        if len(caption) != 1 or not isinstance(caption[0], nodes.paragraph):
            raise ValueError("caption must be one paragraph")
        figure += nodes.caption("", "", *caption[0].children)
        return figure


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("program-output", ProgramOutput)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
