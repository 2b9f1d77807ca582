"""Programs on the pages run; where a page shows what they print and draw, a new run repeats it."""

import re
from functools import cache
from pathlib import Path

import pytest

from hjbridge.ledger import pages
from hjbridge.ledger.pages_again import differences

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("own-problem", "quickstart")


def programs(name: str) -> list[str]:
    """The programs of a page or of the README."""
    return pages.programs(ROOT / name)


@cache
def fresh(name: str) -> list[pages.Output]:
    """What the programs of a page do today."""
    return pages.run(ROOT / "book" / f"{name}.md")


def pair(line: str) -> tuple[float, float]:
    """The two numbers of a line such as `mean 0.79, exact 0.80`."""
    ours, other = re.findall(r"(-?\d+\.\d+)(?: ±[^,]*)?(?:,|$)", line)
    return float(ours), float(other)


@pytest.mark.parametrize("name", SHOWN)
def test_the_outputs_on_a_page_are_what_its_programs_give(name):
    page = ROOT / "book" / f"{name}.md"
    again = differences(name, pages.recorded(page), fresh(name))
    assert not again, "\n".join(again)


def test_every_program_of_these_pages_is_followed_by_its_output():
    assert tuple(pages.pages(ROOT)) == SHOWN
    for name in SHOWN:
        text = (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
        blocks = re.findall(r"^```(python|\{program-output\} \d+)$", text, re.MULTILINE)
        count = len(programs(f"book/{name}.md"))
        assert blocks == [part for k in range(1, count + 1) for part in ("python", f"{{program-output}} {k}")]


@pytest.mark.parametrize("name", ["README.md", "book/own-problem.md", "book/quickstart.md"])
def test_programs_are_short(name):
    for program in programs(name):
        assert len([line for line in program.splitlines() if line.strip()]) <= 20
        assert name == "README.md" or max(map(len, program.splitlines())) <= 80


def test_the_quickstart_samples_digits_and_a_mixture():
    digits, mixture = fresh("quickstart")
    assert min(map(len, digits.pictures)) > 3000 and len(digits.pictures) == 2
    assert len(mixture.printed.splitlines()) == 2
    for line in mixture.printed.splitlines():
        ours, exact = pair(line)
        assert ours == pytest.approx(exact, abs=0.12), line


def test_a_problem_of_ones_own_is_certified_and_costs_what_its_value_says():
    certified, simulated, drawn, episode = fresh("own-problem")
    assert certified.printed.startswith("Grid on room: optimal\n")
    assert min(map(len, drawn.pictures)) > 3000 and len(drawn.pictures) == 2
    # a thousand paths, then a single one
    for output, apart in ((simulated, 0.01), (episode, 0.25)):
        ours, value = pair(output.printed.strip())
        assert ours == pytest.approx(value, rel=apart)


@pytest.mark.parametrize("index", [0, 1])
def test_programs_of_the_readme_run(index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    program = programs("README.md")[index]
    exec(compile(program, f"README.md[{index}]", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    for line in printed.splitlines():
        if "exact" in line and "," in line:
            ours, exact = pair(line)
            assert ours == pytest.approx(exact, abs=0.12), line
    assert "certify" not in program or printed.startswith("Riccati on lqg: optimal\n")


def test_the_program_for_another_device_runs_after_the_first_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for program in (programs("book/quickstart.md")[0], programs("book/reproduce.md")[0]):
        exec(compile(program, "page", "exec"), names)
    assert names["x0"].shape == names["x1"].shape and names["x0"].isfinite().all()


def test_the_program_for_images_of_ones_own_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers.safetensors").write_bytes((ROOT / "data" / "checkpoints" / "digits.safetensors").read_bytes())
    exec(compile(programs("book/own_images.md")[0], "page", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "flowers.png").stat().st_size > 2000
