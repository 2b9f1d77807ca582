"""The text: programs on the pages run, numbers come from the record, references say how far they were seen."""

import json
import re
from pathlib import Path

import pytest

from hjbridge.ledger import all_results

ROOT = Path(__file__).resolve().parents[2]
#: roles, code, mathematics without its numbers, links: what is not typed prose
ASIDE = re.compile(r"\{[a-z:]+\}`[^`]*`|```.*?```|`[^`]*`|\]\([^)]*\)|arXiv:\S+", re.DOTALL)
NUMBER = re.compile(
    r"(?<![\w.])(\d+(?:[,_]\d{3})*(?:\.\d+)?)(?:\s*(?:e|\\times\s*10\^\{?|× ?10\^?)(-?\d+)\}?)?(?![\w])"
)


def significant(text: str) -> int:
    """Significant digits of a number as typed; zeros at the end of an integer do not count."""
    digits = re.sub(r"[,_]", "", text)
    digits = digits.replace(".", "").lstrip("0") if "." in digits else digits.strip("0")
    return len(digits)


def typed(text: str) -> list[tuple[str, float, int]]:
    """Numbers of three or more significant digits in prose: as typed, value, digits."""
    found = []
    for match in NUMBER.finditer(ASIDE.sub(" ", text)):
        if (digits := significant(match[1])) >= 3:
            value = float(re.sub(r"[,_]", "", match[1])) * 10.0 ** int(match[2] or 0)
            found.append((match[0].strip(), value, digits))
    return found


def copies(text: str, recorded: dict[str, float]) -> list[tuple[str, str]]:
    """Typed numbers that equal a recorded one to the digits typed, with the id that should stand there."""
    return [
        (shown, key)
        for shown, value, digits in typed(text)
        for key, known in recorded.items()
        if known and f"{known:.{digits - 1}e}" == f"{value:.{digits - 1}e}"
    ]


def prose(path: Path) -> str:
    """The text of a page; of a notebook the markdown cells."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


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
    ],
)
def test_what_counts_as_a_typed_number(text, shown):
    recorded = {"a": 0.55512, "b": 35746307, "c": 4.035829765e-5, "d": 1000, "e": 60000.0}
    assert [number for number, _ in copies(text, recorded)] == shown


def test_no_recorded_number_is_typed_into_the_text():
    recorded = {key: float(entry.value) for key, entry in all_results(ROOT / "data" / "results").items()}
    assert recorded
    pages = [*ROOT.glob("notebooks/[0-9]*.ipynb"), *ROOT.glob("book/*.md"), ROOT / "README.md"]
    found = {path.name: copies(prose(path), recorded) for path in pages}
    assert not {name: numbers for name, numbers in found.items() if numbers}


def programs(name: str) -> list[str]:
    """The Python programs of a page."""
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    ("name", "index"), [("README.md", 0), ("README.md", 1), ("book/quickstart.md", 0), ("book/quickstart.md", 1)]
)
def test_programs_of_the_pages_run(name, index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program = programs(name)[index]
    assert len([line for line in program.splitlines() if line.strip()]) <= 20
    exec(compile(program, f"{name}[{index}]", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    if "savefig" in program:
        assert (tmp_path / "digits.png").stat().st_size > 3000
    for line in printed.splitlines():
        if "exact" in line and "," in line:
            ours, exact = (float(number) for number in re.findall(r"(-?\d+\.\d+)(?: ±[^,]*)?(?:,|$)", line))
            assert ours == pytest.approx(exact, abs=0.12), line
    assert "certify" not in program or printed.startswith("Riccati on lqg: optimal\n")


def test_the_program_for_another_device_runs_after_the_first_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for program in (programs("book/quickstart.md")[0], programs("book/reproduce.md")[0]):
        exec(compile(program, "page", "exec"), names)
    assert names["x0"].shape == names["x1"].shape and names["x0"].isfinite().all()


def test_the_programs_for_a_problem_of_ones_own_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    # a thousand paths, then a single one
    for program, apart in zip(programs("book/own-problem.md"), (0.01, 0.25), strict=True):
        assert len([line for line in program.splitlines() if line.strip()]) <= 20
        exec(compile(program, "book/own-problem.md", "exec"), names)
        printed = capsys.readouterr().out
        cost, value = (float(number) for number in re.findall(r"-?\d+\.\d\d", printed.splitlines()[-1]))
        assert cost == pytest.approx(value, rel=apart)
        assert "certify" not in program or printed.startswith("Grid on room: optimal\n")
    assert (tmp_path / "room.safetensors").stat().st_size > 1000


def test_the_program_for_images_of_ones_own_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers.safetensors").write_bytes((ROOT / "data" / "checkpoints" / "digits.safetensors").read_bytes())
    exec(compile(programs("book/own_images.md")[0], "page", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "flowers.png").stat().st_size > 2000


def test_every_reference_says_how_far_it_was_seen():
    bib = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = dict(re.findall(r"^@\w+\{(\w+),\n(.*?)^\}", bib, re.MULTILINE | re.DOTALL))
    assert len(entries) > 15
    for key, body in entries.items():
        note = re.search(r"note = \{(.*?)\}", body)
        assert note and note[1] in ("Checked: abstract", "Not seen at its source"), key
        assert re.search(r"year = \{(19|20)\d\d\}", body), key
