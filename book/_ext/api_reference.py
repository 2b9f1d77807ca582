"""The directive `api`: the public names of a package from their docstrings, in a table and module by module."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from types import ModuleType
from typing import Any

from docstrings import inline, readable
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode, nested_parse_with_titles

#: where a sentence ends; `et al. 2021` and `e.g. the` do not end one
SENTENCE = re.compile(r"(?<=[\w)\]])\.\s(?=[A-Z])")


def modules(package: ModuleType, only: list[str]) -> list[ModuleType]:
    """The modules of a package: those named, in that order, then the others in the order of their names."""
    found = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.ispkg]
    known = [name for name in found if not name.startswith("_")]
    if unknown := set(only) - set(known):
        raise ValueError(f"modules must be some of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    return [importlib.import_module(f"{package.__name__}.{name}") for name in [*only, *sorted(set(known) - set(only))]]


def documented(module: ModuleType, name: str) -> bool:
    """Whether a name is a class or a function with a docstring."""
    value = getattr(module, name)
    return (inspect.isclass(value) or inspect.isfunction(value)) and bool(value.__doc__)


def own(module: ModuleType) -> list[str]:
    """Public classes and functions that a module defines, in the order of its source."""
    names = [name for name in vars(module) if not name.startswith("_") and documented(module, name)]
    found = [name for name in names if getattr(module, name).__module__ == module.__name__]
    return sorted(found, key=lambda name: inspect.getsourcelines(getattr(module, name))[1])


def public(package: ModuleType, name: str) -> str:
    """Full name under which users find a name: that of the outermost package that hands it on."""
    value, parts = getattr(package, name), package.__name__.split(".")
    for end in range(2, len(parts)):
        outer = importlib.import_module(".".join(parts[:end]))
        if name in getattr(outer, "__all__", ()) and getattr(outer, name) is value:
            return f"{outer.__name__}.{name}"
    return f"{package.__name__}.{name}"


def contents(package: ModuleType, only: list[str]) -> list[tuple[ModuleType, list[str]]]:
    """What a page describes, by module, with full names: what the package exports, its sub-packages left out.

    A named module of which it exports nothing, and a package that exports none, show what their modules offer. What is
    handed on from elsewhere comes last.
    """
    exported, found = getattr(package, "__all__", []), []
    for module in modules(package, only):
        if names := [n for n in own(module) if n in exported and getattr(package, n) is getattr(module, n)]:
            found.append((module, [public(package, name) for name in names]))
        elif module.__name__.rpartition(".")[2] in only:
            found.append((module, [f"{module.__name__}.{name}" for name in own(module)]))
    for name in (name for name in exported if documented(package, name)):
        module = importlib.import_module(getattr(package, name).__module__)
        if not module.__name__.startswith(f"{package.__name__}."):
            found.append((module, [public(package, name)]))
    return found


def helpers(package: ModuleType, only: list[str]) -> list[str]:
    """Full names of what the modules of a package offer beyond the names that it exports."""
    shown = {value_of(full) for _, names in contents(package, only) for full in names}
    found = [(module, name) for module in modules(package, only) for name in own(module)]
    return [f"{module.__name__}.{name}" for module, name in found if getattr(module, name) not in shown]


def value_of(full: str) -> Any:
    """The object behind a full name."""
    module, _, name = full.rpartition(".")
    return getattr(importlib.import_module(module), name)


def described(full: str) -> list[str]:
    """The directive of autodoc for one name."""
    value = value_of(full)
    kind = "class" if inspect.isclass(value) else "function"
    if inspect.isclass(value) and issubclass(value, BaseException):
        kind = "exception"
    members = ["   :members:", "   :special-members: __call__"] if kind == "class" else []
    return [f".. auto{kind}:: {full}", *members, ""]


def summary(names: list[str]) -> list[str]:
    """A table of names with the first sentence of each docstring."""
    lines = [".. list-table::", "   :widths: 32 68", "   :class: book-summary", ""]
    for full in names:
        paragraph = inspect.cleandoc(value_of(full).__doc__).split("\n\n")[0]
        sentence = SENTENCE.split(re.sub(r"\s+", " ", paragraph))[0]
        sentence = re.sub(r"(?<!\.)\.$", "", sentence)
        lines += [f"   * - :py:obj:`{full.rpartition('.')[2]} <{full}>`", f"     - {inline(sentence)}"]
    return [*lines, ""]


def titled(title: str, *text: str) -> list[str]:
    """A section with its heading."""
    return [title, "-" * len(title), "", *text, ""]


class Api(Directive):
    """`.. api:: package` with a list of modules; with `:helpers:` what the package does not export comes last."""

    required_arguments = 1
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec = {"helpers": directives.flag}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Write reStructuredText for autodoc and parse it."""
        env: BuildEnvironment = self.state.document.settings.env
        package = importlib.import_module(self.arguments[0])
        only = self.arguments[1].split() if len(self.arguments) > 1 else []
        sections = contents(package, only)
        lines = readable((package.__doc__ or "").splitlines()) if hasattr(package, "__all__") else []
        lines += summary([name for _, names in sections for name in names])
        for module, names in sections:
            env.note_dependency(str(module.__file__))
            lines += titled(f"``{module.__name__.rpartition('.')[2]}``", *readable((module.__doc__ or "").splitlines()))
            for name in names:
                lines += described(name)
        if "helpers" in self.options:
            lines += titled("Helpers", "What the modules use themselves, for those who extend them.")
            for name in helpers(package, only):
                lines += described(name)
        holder = nodes.section()
        holder.document = self.state.document
        nested_parse_with_titles(self.state, StringList(lines, source=f"{package.__name__} (docstrings)"), holder)
        return holder.children


def name_functions(app: Sphinx, what: str, name: str, value: Any, options: Any, given: str, returned: str) -> Any:
    """Print what is no expression, a function or a factory as default value, so that the rest can be parsed.

    A private field, which stands last and is given by keyword, is left out.
    """
    if not given:
        return None
    given = re.sub(r", \*, _\w.*\)$", ")", given)
    return re.sub(r"<function (\w+)>", r"\1", given).replace("<factory>", "..."), returned


def skip_alias(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples, and a field whose default is a function: autodoc takes it for a method."""
    field = (getattr(value, "__doc__", None) or "").startswith("Alias for field number")
    alias = inspect.isfunction(value) and value.__name__ != name
    return True if what == "class" and (field or alias) else None


def rewrite(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Bring a docstring of the house style into reStructuredText."""
    lines[:] = readable(lines)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Link `hjbridge.sde.process.Process` to the place where it is described, `hjbridge.sde.Process`."""
    module, _, last = node.get("reftarget", "").rpartition(".")
    if node.get("refdomain") != "py" or not module.startswith("hjbridge"):
        return None
    for name, entry in env.get_domain("py").objects.items():  # type: ignore[attr-defined]
        if name.startswith("hjbridge.") and name.rpartition(".")[2] == last:
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)
    # a name that exists but has no entry, such as a type variable, is shown without a link
    return content if hasattr(importlib.import_module(module), last) else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", rewrite)
    app.connect("autodoc-process-signature", name_functions)
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
