"""The repository and the files that belong to it."""

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
APART = {"_build", "build", "dist", "__pycache__", ".git"}


def ours(path: Path) -> bool:
    """Whether a path belongs to the project where no git can tell."""
    return not any(
        part in APART or part.startswith(".venv") or part.endswith(("_cache", ".egg-info")) for part in path.parts
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def files() -> list[Path]:
    """Every file that is tracked, or would be: what git does not ignore."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        found = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    else:
        found = [path for path in ROOT.rglob("*") if path.is_file() and ours(path.relative_to(ROOT))]
    assert ROOT / "pyproject.toml" in found
    return found


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
