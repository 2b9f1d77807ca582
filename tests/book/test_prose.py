"""The text: numbers come from the record, references say how far they were seen."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hjbridge.ledger import all_results

ROOT = Path(__file__).resolve().parents[2]
#: roles, code, mathematics without its numbers, links: what is not typed prose
ASIDE = re.compile(r"\{[a-z:]+\}`[^`]*`|`[^`]*`|\]\([^)]*\)|arXiv:\S+", re.DOTALL)
#: a fenced block: code, or a directive, whose body is prose
BLOCK = re.compile(r"^```(?P<directive>\{(?!code|math))?[^\n]*\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
NUMBER = re.compile(
    r"(?P<sign>(?<![\w)}])[-−])?(?<![\w.])(?P<digits>\d+(?:(?:[,_]|\{,\}|\\,)\d{3})*(?:\.\d+)?|\.\d+)"
    r"(?:\s*(?:e|\\(?:times|cdot)\s*10\^\{?|[×·] ?10\^?\{?)(?P<power>[-−]?\d+|[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)\}?)?(?!\w)"
    r"(?:(?:\s|\\,)*(?P<percent>\\?%|per cent\b))?"
)


def significant(text: str) -> int:
    """Significant digits of a number as typed; zeros at the end of an integer do not count."""
    digits = re.sub(r"[^\d.]", "", text)
    digits = digits.replace(".", "").lstrip("0") if "." in digits else digits.strip("0")
    return len(digits)


def typed(text: str) -> list[tuple[str, float, int]]:
    """Numbers of three or more significant digits in prose: as typed, value, digits; a percentage as a share, too."""
    found, text = [], BLOCK.sub(lambda match: match["body"] if match["directive"] else " ", text)
    for match in NUMBER.finditer(ASIDE.sub(" ", text)):
        if (digits := significant(match["digits"])) >= 3:
            power = int((match["power"] or "0").translate(SUPERSCRIPT).replace("−", "-"))
            value = float(re.sub(r"[^\d.]", "", match["digits"])) * 10.0**power * (-1 if match["sign"] else 1)
            shown = match[0].strip()
            found += [(shown, value, digits)] + ([(shown, value / 100, digits)] if match["percent"] else [])
    return found


def copies(text: str, recorded: dict[str, float]) -> list[tuple[str, str]]:
    """Typed numbers that equal a recorded one to the digits typed, with the id that should stand there."""
    return [
        (shown, key)
        for shown, value, digits in typed(text)
        for key, known in recorded.items()
        if known and f"{known:.{digits - 1}e}" == f"{value:.{digits - 1}e}"
    ]


def spoken(metadata: Any) -> Iterator[str]:
    """Captions and alternative texts in the metadata of a cell."""
    if isinstance(metadata, dict):
        for name, value in metadata.items():
            if name in ("caption", "alt") and isinstance(value, str):
                yield value
            else:
                yield from spoken(value)


def prose(path: Path) -> str:
    """The text of a page; of a notebook the markdown cells, the captions and the alternative texts."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    found: list[str] = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        found += ["".join(cell["source"])] if cell["cell_type"] == "markdown" else []
        found += spoken(cell["metadata"])
    return "\n\n".join(found)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The distance is 0.5551 here.", ["0.5551"]),
        ("about 0.555", ["0.555"]),
        ("roughly .55 or 0.6", []),
        ("there are 35,746,307 parameters", ["35,746,307"]),
        (r"ends at $4.036 \times 10^{-5}$", [r"4.036 \times 10^{-5}"]),
        ("see {result}`ch06.fd_ddpm` and `0.5551`", []),
        ("1000 steps, 60000 images", []),
        ("roughly .555, or .55", [".555"]),
        ("a value of -1.23, of −1.23 or of $-1.23$; 1.23 is another", ["-1.23", "−1.23", "-1.23"]),
        ("a range of 1.05-1.23", []),
        (r"99.1 % or 99.1% or $99.1\,\%$ or 99.1 per cent of them", ["99.1 %", "99.1%", r"99.1\,\%", "99.1 per cent"]),
        ("99.1 of them", []),
        (r"$35{,}746{,}307$ or $35\,746\,307$", ["35{,}746{,}307", r"35\,746\,307"]),
        ("4.036 × 10⁻⁵, 4.036e-5", ["4.036 × 10⁻⁵", "4.036e-5"]),
        (r"4.036 · 10⁻⁵, $4.036 \cdot 10^{-5}$", ["4.036 · 10⁻⁵", r"4.036 \cdot 10^{-5}"]),
        ("4.036 × 10^{-5} or 4.036·10^-5", ["4.036 × 10^{-5}", "4.036·10^-5"]),
        ("```python\nx = 0.555\n```\nthen 0.5551\n```\n0.55512\n```\n", ["0.5551"]),
        ("```{figure} 0.5551.png\nabout 0.555\n```\n\n```{math}\n0.5551\n```\n", ["0.555"]),
        (":::{admonition} Of 0.555\n:::", ["0.555"]),
    ],
)
def test_what_counts_as_a_typed_number(text, shown):
    recorded = {"a": 0.55512, "b": 35746307, "c": 4.035829765e-5, "d": 1000, "e": 60000.0, "f": -1.2304, "g": 0.9906}
    assert [number for number, _ in copies(text, recorded)] == shown


def test_captions_and_alternative_texts_are_prose(tmp_path):
    shown = {"mystnb": {"figure": {"caption": "A caption", "name": "fig-x"}, "image": {"alt": "An alternative text"}}}
    cells = [{"cell_type": "code", "source": ["x = 1"], "metadata": shown},
             {"cell_type": "markdown", "source": ["Words"], "metadata": {}}]  # fmt: skip
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    assert prose(tmp_path / "a.ipynb") == "A caption\n\nAn alternative text\n\nWords"


def test_no_recorded_number_is_typed_into_the_text():
    recorded = {key: float(entry.value) for key, entry in all_results(ROOT / "data" / "results").items()}
    assert recorded
    pages = [
        *ROOT.glob("notebooks/[0-9]*.ipynb"),
        *ROOT.glob("book/*.md"),
        *ROOT.glob("book/*.rst"),
        ROOT / "README.md",
    ]
    found = {path.name: copies(prose(path), recorded) for path in pages}
    assert not {name: numbers for name, numbers in found.items() if numbers}


def test_every_reference_says_how_far_it_was_seen():
    bib = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", bib, re.MULTILINE | re.DOTALL))
    assert len(entries) > 15
    for key, body in entries.items():
        note = re.search(r"note = \{(.*?)\}", body)
        assert note and re.match(r"Checked: |Not seen at its source$", note[1]), key
        assert re.search(r"year = \{(19|20)\d\d\}", body), key
