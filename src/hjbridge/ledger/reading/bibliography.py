"""The list of references: how a source is named in a sentence, and in full at the end."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from hjbridge.ledger.files import LedgerError

ENTRY = re.compile(r"^@(\w+)\{([\w-]+),\n(.*?)^\}$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\s*(\w+) = \{(.*)\},?$", re.MULTILINE)
ACCENTS = {"'": "\u0301", "`": "\u0300", '"': "\u0308", "^": "\u0302", "~": "\u0303", "c": "\u0327", "v": "\u030c"}
LETTERS = {"l": "ł", "L": "Ł", "o": "ø", "ss": "ß", "i": "ı", "ae": "æ", "aa": "å"}


@dataclass(frozen=True)
class Source:
    """One entry.

    Attributes: names, the authors as a sentence has them, such as `Jia and Zhou`; year, with a letter where another
        entry has the same names and year; text, the entry in full.
    """

    names: str
    year: str
    text: str


def load(path: Path) -> dict[str, Source]:
    """All entries of a BibTeX file by key.

    Raises: LedgerError if it cannot be read, or an entry lacks author, title or year.
    """
    try:
        entries = {key: dict(FIELD.findall(body)) for _, key, body in ENTRY.findall(path.read_text(encoding="utf-8"))}
        shorts = {key: (sentence(people(fields["author"])), fields["year"]) for key, fields in entries.items()}
        years = {key: year + letter(key, shorts) for key, (_, year) in shorts.items()}
        return {key: Source(shorts[key][0], years[key], full(entries[key], years[key])) for key in entries}
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(f"{path} cannot be read: {error}") from error
    except KeyError as error:
        raise LedgerError(f"{path}: an entry has no field {error}") from error


def letter(key: str, shorts: dict[str, tuple[str, str]]) -> str:
    """`a`, `b`, ... in the order of the file for entries that a sentence could not tell apart; else nothing."""
    alike = [other for other, short in shorts.items() if short == shorts[key]]
    return chr(ord("a") + alike.index(key)) if len(alike) > 1 else ""


def people(field: str) -> list[tuple[str, str]]:
    """Family and given names."""
    return [(plain(family), plain(given)) for family, _, given in (one.partition(", ") for one in field.split(" and "))]


def sentence(authors: list[tuple[str, str]]) -> str:
    """One or two family names, or the first with `et al.`."""
    families = [family for family, _ in authors]
    return f"{families[0]} et al." if len(families) > 2 else " and ".join(families)


def full(fields: dict[str, str], year: str) -> str:
    """Markdown of one entry."""
    names = "; ".join(f"{family}, {given}" if given else family for family, given in people(fields["author"]))
    venue = next(
        (plain(fields[name]) for name in ("journal", "booktitle", "publisher", "institution") if name in fields), ""
    )
    numbers = fields.get("volume", "") + (f"({fields['number']})" if "number" in fields else "")
    where = ", ".join(filter(None, [f"{venue} {numbers}".strip(), plain(fields.get("pages", ""))]))
    found = f"<{address[1]}>" if (address := re.search(r"\\url\{(.*?)\}", fields.get("howpublished", ""))) else ""
    if "eprint" in fields:
        found = f"[arXiv:{fields['eprint']}](https://arxiv.org/abs/{fields['eprint']})"
    parts = [f"{names} ({year})", f"*{plain(fields['title'])}*", where, found, plain(fields.get("note", ""))]
    return ". ".join(part for part in parts if part) + "."


def plain(text: str) -> str:
    r"""Text without TeX: `Hyv{\"a}rinen` is Hyvärinen, `A{\c c}{\i}kme{\c s}e` is Açıkmeşe."""

    def accented(found: re.Match[str]) -> str:
        return unicodedata.normalize("NFC", found[2].replace("\\i", "ı") + ACCENTS[found[1]])

    text = re.sub(r"\{?\\(['`\"^~])\{?(\\?\w)\}?\}?", accented, text)
    text = re.sub(r"\{\\([cv]) (\w)\}", accented, text)
    text = re.sub(r"\{\\(\w+)\}", lambda found: LETTERS.get(found[1], found[0]), text)
    if "\\" in (bare := re.sub(r"[{}]", "", text.replace("--", "\N{EN DASH}"))):
        raise LedgerError(f"the list of references holds TeX that is not known: {text}")
    return bare
