"""Readers' copies: chapters for JupyterLab, nbviewer and VS Code, which know nothing of the book's roles.

Numbers, verdicts and citations are written out, and directives become plain Markdown; code stays as it is.
`copies` makes and writes them, `book` reads the record, `prose` rewrites a cell, `numbering` counts as the site does,
`bibliography` cites.
"""

from hjbridge.ledger.reading.book import Book
from hjbridge.ledger.reading.copies import copy_of, numbered, write

__all__ = ["Book", "copy_of", "numbered", "write"]
