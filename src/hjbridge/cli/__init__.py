"""The command line, `hjbridge COMMAND`.

`record` reads and makes the record, `reading` copies chapters, `weights` trains, `sets` fetches data.

Everything heavy is imported inside the command that needs it, so that help and completion answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from hjbridge.cli import reading, record, sets, weights
from hjbridge.cli.terminal import Usage, say, spell_out

EXIT_CODES = "Exit codes: 0 done, 1 something is wrong, 2 wrong usage or an unknown id, 130 interrupted."
COMMANDS: tuple[Callable[..., None], ...] = (
    record.run, record.pages, record.check, record.seal, record.claims, record.results, record.cite, reading.reading,
    weights.train, weights.evaluate, record.normalise, record.version,
)  # fmt: skip
DATA_COMMANDS: tuple[Callable[..., None], ...] = (sets.list, sets.fetch, sets.verify)

app = typer.Typer(
    help="Run, check and cite the book's numbers.", epilog=EXIT_CODES, no_args_is_help=True,
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
data_app = typer.Typer(help="The data sets: list them, fetch the full ones, verify every byte.", no_args_is_help=True)
for command in COMMANDS:
    app.command()(command)
for command in DATA_COMMANDS:
    data_app.command()(command)
app.add_typer(data_app, name="data")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point: what the user can mend is told in one line, without a traceback; exits as EXIT_CODES says."""
    spell_out(sys.stdout)
    spell_out(sys.stderr)
    try:
        sys.exit(app(args=arguments, standalone_mode=False))
    except Usage as error:
        message, code = error.format_message() or "a command is missing", 2
    except (ValueError, OSError, RuntimeError, ArithmeticError, AssertionError) as error:
        from hjbridge.ledger.results import UnknownId

        message, code = str(error), 2 if isinstance(error, UnknownId) else 1
    say(f"error: {message}", "red", err=True)
    sys.exit(code)
