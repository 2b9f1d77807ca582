"""Where the committed checkpoints lie: in the repository; without one in the cache, fetched from the release, verified.

`checkpoints.sha256` beside this file names them with the hash of each file, as `sha256sum` does. A comment that never
changes stands above each line, so that git merges two branches that renew neighbouring checkpoints.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from hjbridge import __version__
from hjbridge.store import CLONE, cache, repository, write_atomic

ADDRESS = f"https://github.com/hjbridge/hjbridge/releases/download/v{__version__}/"
REGISTRY = Path(__file__).with_name("checkpoints.sha256")


def published() -> dict[str, str]:
    """Name of each committed checkpoint, classifiers included -> sha256 of its file."""
    return _listed(REGISTRY)


def _listed(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {Path(file).stem: digest for digest, file in (line.split() for line in lines if not line.startswith("#"))}


def enter(path: Path, root: Path) -> None:
    """Renew the line of a committed checkpoint in the list of the repository `root`, after it was made anew."""
    listing = root / "src" / "hjbridge" / "score" / REGISTRY.name
    digests = _listed(listing) | {path.stem: sha256(path.read_bytes()).hexdigest()}
    lines = (f"# hjbridge train {name}\n{digests[name]}  {name}.safetensors\n" for name in sorted(digests))
    write_atomic(listing, "".join(lines).encode())


def folder() -> Path:
    """The folder of the committed checkpoints: the repository's, or the cache where there is none."""
    here = repository()
    return (here / "data" if here else cache()) / "checkpoints"


def names() -> list[str]:
    """The committed checkpoints and, in a repository, whatever else lies in their folder."""
    others = folder().glob("*.safetensors") if repository() else ()
    return sorted(published().keys() | {file.stem for file in others})


def find(name: str) -> Path:
    """Path of a committed checkpoint, or of another one in the repository's folder.

    In a repository the file may be missing or harmed, which reading it will tell; without one it is fetched if need be.
    Raises: ValueError for an unknown name (lists the known); OSError if it cannot be fetched (says what to do).
    """
    path, known = folder() / f"{name}.safetensors", names()
    if name not in known:
        known = [name for name in known if not name.startswith("classifier-")]
        raise ValueError(f"name must be one of {', '.join(known)} or a .safetensors file, got {name!r}")
    return path if repository() or whole(path) else _fetched(name)


def _fetched(name: str) -> Path:
    """A committed checkpoint in the cache, downloaded by pooch unless it is there."""
    import pooch

    file, digest = f"{name}.safetensors", published()[name]
    try:
        return Path(pooch.retrieve(ADDRESS + file, f"sha256:{digest}", file, cache() / "checkpoints"))
    except (OSError, ValueError) as error:  # unreachable, or not the published bytes
        raise OSError(
            f"checkpoint {name} could not be had from {ADDRESS}{file} ({type(error).__name__}): try again, or bring it "
            f"by `hjbridge data fetch checkpoints --from FOLDER` from a folder that holds it, or {CLONE}"
        ) from error


def whole(path: Path) -> bool:
    """Whether a file holds the very bytes of the committed checkpoint of its name."""
    return path.is_file() and sha256(path.read_bytes()).hexdigest() == published().get(path.stem)


def remedy(path: Path) -> str:
    """What to do if a checkpoint is missing or harmed, in words."""
    if path.resolve().parent != folder().resolve():
        return f"make it again with `hjbridge train NAME --out {path}`"
    if path.stem not in published():
        return f"make it again with `hjbridge train {path.stem}`"
    if repository():
        return f"restore it with `git checkout -- data/checkpoints/{path.name}`, or `hjbridge train {path.stem}`"
    return "bring it again with `hjbridge data fetch checkpoints`"


def fetch(source: str | Path | None = None) -> list[str]:
    """Put the committed checkpoints into the cache, each verified.

    Args: source: None to take them from the release of this version; or a folder that holds all or some of them, in any
        sub-folder, such as a clone.
    Returns: the names of those that were found.
    Raises: ValueError for a file that is not the published one, FileNotFoundError if there is none at all: nothing is
        written then; OSError without network.
    """
    if source is None:
        return [_fetched(name).stem for name in published()]
    found = {}
    for path in sorted(Path(source).rglob("*.safetensors")):
        if path.stem in published():
            if not whole(path):
                raise ValueError(
                    f"{path} must have sha256 {published()[path.stem]}: it is harmed, or not of version {__version__}"
                )
            found[path.stem] = path.read_bytes()
    if not found:
        raise FileNotFoundError(f"source must be a folder with checkpoints such as digits.safetensors, got {source}")
    for name, content in found.items():
        write_atomic(cache() / "checkpoints" / f"{name}.safetensors", content)
    return list(found)
