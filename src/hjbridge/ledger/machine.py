"""What a number can depend on besides the code: versions and the processor."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that a number can depend on, as far as they are imported."""
    found = {"python": platform.python_version(), "hjbridge": package_version()}
    for name, module in (("torch", "torch"), ("numpy", "numpy"), ("scipy", "scipy"), ("scikit-learn", "sklearn")):
        if module in sys.modules:
            found[name] = metadata.version(name).split("+")[0]
    return found


def package_version() -> str:
    """Version of this package."""
    try:
        return metadata.version("hjbridge")
    except metadata.PackageNotFoundError:
        return "not installed"


def cpu() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
