"""The list of seals: its form, what it covers, and what renews a line."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hjbridge.ledger import LedgerError, seals, stage
from hjbridge.ledger.files import Lock

FILES = [
    "data/checkpoints/digits.safetensors", "data/mnist/mnist.npz", "data/mnist/provenance.json",
    "data/results/ch05.json", "data/results/full/ch06.json",
]  # fmt: skip


@pytest.fixture
def sealed(repository):
    """A repository with one file of each kind, all sealed."""
    for name in [*FILES, "data/README.md", "data/mnist/LICENSE", "data/results/notes.json"]:
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(name)
    for name in FILES:
        seals.renew(repository / name)
    return repository


def lines(root):
    return (root / seals.LIST).read_text().splitlines()


def test_the_list_has_the_form_of_sha256sum_and_is_sorted(sealed):
    assert seals.covered(sealed) == FILES
    found = lines(sealed)
    assert [line[66:] for line in found if not line.startswith("#")] == FILES
    assert [line for line in found if line.startswith("#")][1:] == [
        "# hjbridge seal data/checkpoints/digits.safetensors", "# hjbridge seal data/mnist/mnist.npz",
        "# hjbridge seal data/mnist/provenance.json", "# make record CH=05", "# hjbridge evaluate",
    ]  # fmt: skip
    check = ["sha256sum", "--check", "--strict", "--quiet", seals.LIST]
    assert subprocess.run(check, cwd=sealed, capture_output=True, text=True).returncode == 0
    (sealed / FILES[0]).write_text("x")
    assert FILES[0] in subprocess.run(check, cwd=sealed, capture_output=True, text=True).stdout


def test_what_is_broken_is_told_and_renewing_one_line_does_not_launder_another(sealed):
    assert seals.broken(sealed) == {}
    seals.verify(sealed)
    (sealed / FILES[0]).write_text("x")
    (sealed / FILES[1]).unlink()
    (sealed / FILES[2]).write_text("y")
    odd = dict.fromkeys(FILES[:3], "is not the file that was sealed") | {FILES[1]: "is gone"}
    assert seals.broken(sealed) == odd
    seals.renew(sealed / FILES[2])
    assert seals.broken(sealed).keys() == set(FILES[:2])
    seals.verify(sealed, FILES[:2])
    with pytest.raises(LedgerError) as error:
        seals.verify(sealed, FILES[:1])
    assert str(error.value).startswith(f"{FILES[1]} is gone; restore it with `git checkout -- {FILES[1]}`\n")
    assert FILES[0] not in str(error.value)
    seals.renew(sealed / FILES[1])  # taken away for good
    assert FILES[1] not in seals.sealed(sealed)


def test_a_line_that_is_no_seal_is_told_by_its_number(sealed):
    text = (sealed / seals.LIST).read_text()
    (sealed / seals.LIST).write_text(text + "\n<<<<<<< HEAD\n")
    told = rf"seals, line {len(text.splitlines()) + 2}: must be `<sha256>  <path>`, got '<<<<<<< HEAD'; restore it with"
    with pytest.raises(LedgerError, match=told):
        seals.sealed(sealed)


def test_without_a_list_nothing_is_sealed(repository):
    assert seals.sealed(repository) == seals.broken(repository) == {}
    seals.verify(repository)


@pytest.mark.parametrize("name", ["data/README.md", "data/mnist/LICENSE", "data/results/notes.json", "../a", "nothing"])
def test_other_files_are_never_sealed(sealed, name):
    (sealed.parent / "a").touch()
    with pytest.raises(ValueError, match=r"path must be one of data/results/.*, got .*" + name):
        seals.renew(sealed / name)


def git(folder, *words):
    if not shutil.which("git"):
        pytest.skip("no git here")
    own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *own, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_branches_that_renew_neighbouring_lines_and_add_new_ones_are_merged(sealed):
    """With the attributes that the repository gives to the lists."""
    attributes = Path(__file__).resolve().parents[3] / ".gitattributes"
    (sealed / ".gitattributes").write_bytes(attributes.read_bytes())
    git(sealed, "init", "-q", "-b", "main")
    git(sealed, "add", "--force", ".")
    git(sealed, "commit", "-q", "-m", "start")
    for branch, changed in (
        ("one", (FILES[1], "data/results/ch07.json")),
        ("two", (FILES[2], "data/results/ch08.json")),
    ):
        git(sealed, "checkout", "-q", "-b", branch, "main")
        for name in changed:
            (sealed / name).write_text(branch)
            seals.renew(sealed / name)
        git(sealed, "add", "--force", ".")
        git(sealed, "commit", "-q", "-m", branch)
    git(sealed, "merge", "-q", "-m", "both", "one")
    assert seals.broken(sealed) == {}
    assert sorted(seals.sealed(sealed)) == sorted([*FILES, "data/results/ch07.json", "data/results/ch08.json"])


def test_a_file_that_two_branches_have_sealed_differently_is_told(sealed):
    text = (sealed / seals.LIST).read_text()
    (sealed / seals.LIST).write_text(text + f"{'0' * 64}  {FILES[3]}\n")
    assert seals.broken(sealed) == {FILES[3]: "was sealed twice, by two branches"}
    (sealed / seals.LIST).write_text(text + lines(sealed)[-3] + "\n")
    assert seals.broken(sealed) == {}, "the same line twice is no harm"


def test_a_seal_waits_for_another_holder_of_the_record(sealed):
    lock = Lock(sealed / "_build" / "promotion.lock", "the record").acquire()
    with pytest.raises(LedgerError, match=f"the record is in use by process {os.getpid()}"), seals.guard(sealed, 0.1):
        pass
    lock.release()
    with seals.guard(sealed, 0.0):
        pass


def test_a_seal_is_set_after_an_interrupted_promotion_was_finished(sealed):
    stage.promote({FILES[3]: "new"}, sealed)  # leaves no journal
    steps = f'{{"{FILES[0]}": {{"text": "late", "replaces": "{stage.content_hash(sealed / FILES[0])}"}}}}'
    stage.journal(sealed).write_text(steps)
    seals.renew(sealed / FILES[3])
    assert (sealed / FILES[0]).read_text() == "late" and not stage.journal(sealed).exists()
    assert list(seals.broken(sealed)) == [FILES[0]]
