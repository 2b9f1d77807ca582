"""Hashes that follow behaviour and not looks."""

import json
import struct
import subprocess
import sys
import textwrap
import time

import pytest

from hjbridge.ledger import freshness
from hjbridge.ledger.freshness import code_hash, module_hashes, modules_hash, notebook_hash

SOURCE = '''
"""Module."""
import math

SCALE = 2.0

class A:
    """Class."""

    def area(self, r: float = 1.0) -> float:
        """Area."""
        return SCALE * math.pi * r**2  # formula

def empty():
    """Nothing."""

def text(x):
    return f"a{x}b" "c" f"{x!r:>{3}}"
'''


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("# formula", "# another"),
        lambda s: s.replace('"""Area."""', '"""The area of a disc,\n\n        in square metres."""'),
        lambda s: s.replace('        """Area."""\n', ""),
        lambda s: s.replace('"""Nothing."""', "pass"),
        lambda s: s.replace('"""Module."""\n', ""),
        lambda s: s.replace("SCALE * math.pi", "(SCALE\n            * math.pi)"),
        lambda s: s.replace("\n", "\n\n").replace("    ", "  "),
        lambda s: s.replace("2.0", "2.00"),
        lambda s: s.replace('f"a{x}b" "c" f"{x!r:>{3}}"', "f'a{x}bc{x!r:>{3}}'"),
        lambda s: s.replace("import math", "import math  # noqa"),
    ],
)
def test_looks_do_not_count(change):
    assert change(SOURCE) != SOURCE
    assert code_hash(change(SOURCE)) == code_hash(SOURCE)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("2.0", "2.1"),
        lambda s: s.replace("2.0", "2"),
        lambda s: s.replace("SCALE * math", "SCALE / math"),
        lambda s: s.replace("r**2", "-r**2"),
        lambda s: s.replace("r: float = 1.0", "r: float = 1.5"),
        lambda s: s.replace("area", "volume"),
        lambda s: s.replace("return SCALE", "return [] or SCALE"),
        lambda s: s.replace('"c"', '"d"'),
        lambda s: s.replace("!r", "!s"),
        lambda s: s.replace(">{3}", "<{3}"),
        lambda s: s.replace("def empty", "async def empty"),
        lambda s: s.replace("class A:", "class A(int):"),
        lambda s: s + "\nempty()",
        lambda s: s.replace("import math", "import math as math"),
    ],
)
def test_behaviour_counts(change):
    assert change(SOURCE) != SOURCE
    assert code_hash(change(SOURCE)) != code_hash(SOURCE)


def test_the_form_is_pinned_so_that_python_versions_agree():
    """Fields that newer versions add (type_params) or print (empty lists, None) must not appear."""
    canonical = freshness.canonical(freshness.ast.parse("def f(x, *, y=None):\n    'doc'\n    return [x, -1], ()"))
    assert canonical == (
        "(Module body=[(FunctionDef name='f' args=(arguments args=[(arg arg='x'),] kwonlyargs=[(arg arg='y'),]"
        " kw_defaults=[NoneType:None,]) body=[(Return value=(Tuple elts=[(List elts=[(Name id='x'),"
        "(UnaryOp op=(USub) operand=int:1),]),(Tuple),])),]),])"
    )
    assert code_hash("x = 1") == "ce563bd01f076c92b78450126f11ee5193067ec4687fcc1984865532cccb3f79"


def test_fields_of_newer_pythons_are_left_out():
    class Newer(freshness.ast.Pass):
        _fields = ("type_params", "extra", "name")

    node = Newer()
    node.type_params, node.extra, node.name = [], None, "f"
    assert freshness.canonical(node) == "(Newer name='f')"


def test_parts_of_an_f_string_are_joined_however_a_version_splits_them():
    """Python 3.11 joins neighbours itself; 3.12 does not always."""
    ast = freshness.ast
    name = ast.FormattedValue(ast.Name("x"), -1)
    one = freshness.joined([ast.Constant("a"), ast.Constant("b"), name, ast.Constant(""), ast.Constant("c")])
    two = freshness.joined([ast.Constant("ab"), name, ast.Constant("c")])
    assert [freshness.canonical(node) for node in one] == [freshness.canonical(node) for node in two]
    assert freshness.canonical(one[0]) == "str:'ab'"
    assert len(freshness.joined([ast.Constant(""), ast.Constant("c")])) == 2, "where no value stands, all is code"


def cells(*sources, kind="code", tags=()):
    return [{"cell_type": kind, "source": source, "metadata": {"tags": list(tags)}} for source in sources]


def test_a_notebooks_prose_outputs_and_looks_do_not_count():
    base = notebook_hash(cells("a = 1\n", "print(a)"))
    assert notebook_hash([*cells("# words", kind="markdown"), *cells("a = 1  # one", "print( a )")]) == base
    assert (
        notebook_hash([*cells("a = 1"), *cells("a = 9", tags=["injected-parameters"]), *cells(["print(", "a)"])])
        == base
    )
    assert (
        notebook_hash([cell | {"outputs": [1], "execution_count": 3} for cell in cells("a = 1", "", "print(a)")])
        == base
    )


def test_a_notebooks_code_order_and_borders_count():
    base = notebook_hash(cells("a = 1", "print(a)"))
    assert len({base, notebook_hash(cells("a = 2", "print(a)")), notebook_hash(cells("print(a)", "a = 1")),
                notebook_hash(cells("a = 1\nprint(a)")), notebook_hash(cells("a = 1"))}) == 5  # fmt: skip


def test_magic_lines_and_broken_cells_count_as_they_stand():
    assert notebook_hash(cells("%matplotlib inline\na = 1")) != notebook_hash(cells("%matplotlib agg\na = 1"))
    assert notebook_hash(cells("%matplotlib inline\na = 1")) == notebook_hash(cells("%matplotlib inline\na=1 # x"))
    assert notebook_hash(cells("a = (")) != notebook_hash(cells("b = ("))
    # a line of Python may begin with the sign of a magic
    broken = cells("a = (b\n     % c  # rest\n)")
    assert notebook_hash(broken) == notebook_hash(cells("a = (b % c)")) != notebook_hash(cells("a = (b % d)"))


def test_modules_are_hashed_by_name_without_importing_them():
    program = textwrap.dedent(
        """
        import sys
        from hjbridge.ledger.freshness import module_hashes
        hashes = module_hashes(["hjbridge.sde.process", "hjbridge.ledger"])
        assert list(hashes) == ["hjbridge.ledger", "hjbridge.sde.process"]
        assert not {"torch", "numpy", "hjbridge.sde"} & set(sys.modules)
        """
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_module_is_hashed_in_milliseconds():
    root = freshness.PACKAGE
    names = ["hjbridge." + ".".join(p.relative_to(root).with_suffix("").parts) for p in root.rglob("[a-z]*.py")]
    freshness._hash_of_bytes.cache_clear()
    start = time.process_time()
    assert len(module_hashes(names)) == len(names) > 15
    assert time.process_time() - start < 0.02 * len(names)


def test_one_hash_covers_all_modules():
    names = ["hjbridge.ledger.files", "hjbridge.ledger.rules"]
    assert modules_hash(names) == modules_hash(reversed(names)) != modules_hash(names[:1])


@pytest.mark.parametrize("name", ["os", "hjbridge..files", "hjbridge.ledger/files", "", "hjbridgex.a"])
def test_other_modules_are_refused(name):
    with pytest.raises(ValueError, match="name must be a module of hjbridge"):
        module_hashes([name])


def test_a_module_that_is_gone_is_told():
    with pytest.raises(FileNotFoundError, match=r"module hjbridge.ledger.nothing does not exist"):
        module_hashes(["hjbridge.ledger.nothing"])
    good = module_hashes(["hjbridge.ledger.files"])
    assert freshness.stale_modules(good) == []
    assert freshness.stale_modules(good | {"hjbridge.ledger.nothing": "0", "hjbridge.ledger.rules": "0"}) == [
        "hjbridge.ledger.nothing (gone)",
        "hjbridge.ledger.rules",
    ]


def checkpoint(path, entry):
    header = json.dumps({"__metadata__": {"hjbridge": json.dumps(entry)}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    return path


def test_the_header_of_a_checkpoint_is_read_without_torch(tmp_path):
    import numpy as np
    import safetensors.numpy as safetensors

    path = tmp_path / "a.safetensors"
    safetensors.save_file({"w": np.ones(2)}, path, metadata={"hjbridge": json.dumps({"seed": 3})})
    assert freshness.safetensors_metadata(path) == {"seed": 3}


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\x80\x04pickle" * 9, struct.pack("<Q", 5) + b"{}", struct.pack("<Q", 2) + b"{}"]
)
def test_a_damaged_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.safetensors is not a safetensors file with an entry 'hjbridge'"):
        freshness.safetensors_metadata(path)


def test_a_stale_checkpoint_is_told(tmp_path):
    names = ["hjbridge.ledger.files", "hjbridge.ledger.rules"]
    path = tmp_path / "a.safetensors"
    assert freshness.stale_checkpoint(checkpoint(path, {"modules": names, "hash": modules_hash(names)})) == []
    assert freshness.stale_checkpoint(checkpoint(path, {"modules": module_hashes(names)})) == []
    assert freshness.stale_checkpoint(checkpoint(path, {"modules": names, "hash": "0"})) == [
        "one of " + ", ".join(names)
    ]
    old = module_hashes(names) | {names[1]: "0"}
    assert freshness.stale_checkpoint(checkpoint(path, {"modules": old})) == [names[1]]
    gone = freshness.stale_checkpoint(checkpoint(path, {"modules": ["hjbridge.nothing"], "hash": "0"}))
    assert gone == ["module hjbridge.nothing does not exist (any more)"]
    assert freshness.stale_checkpoint(checkpoint(path, {"seed": 1})) == ["no modules in its header"]
