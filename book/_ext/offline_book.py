"""Keep the built book self-contained: no thebe, no content delivery network, no script loaded twice."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def _foreign(asset: Any) -> bool:
    """Whether a script or style sheet belongs to thebe or lies on another machine."""
    body = str((getattr(asset, "attributes", None) or {}).get("body") or "")
    name = str(getattr(asset, "filename", asset) or "")
    return "THEBE" in body or "thebe" in name or name.startswith(("http:", "https:", "//"))


def drop_foreign(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Remove scripts and style sheets that are not the book's own."""
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, []) if not _foreign(asset)]


def without_thebe(app: Sphinx, config: Any) -> None:
    """Take away the listeners of thebe, which Jupyter Book loads although `thebe: false` is set."""
    for name, listeners in app.events.listeners.items():
        kept = [one for one in listeners if not one.handler.__module__.startswith("sphinx_thebe")]
        app.events.listeners[name] = kept


def drop_thebe_files(app: Sphinx, error: Exception | None) -> None:
    """Delete the files of thebe from the output: nothing refers to them."""
    if error is None and app.builder.format == "html":
        for path in (app.outdir / "_static").glob("sphinx-thebe*"):
            path.unlink()


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect after the extensions that add the scripts."""
    app.connect("config-inited", without_thebe)
    app.connect("html-page-context", drop_foreign, priority=900)
    app.connect("build-finished", drop_thebe_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
