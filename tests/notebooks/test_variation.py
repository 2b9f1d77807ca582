"""Every chapter runs at another size and from another seed, and leaves the record alone."""

import json
import os
from pathlib import Path

from hjbridge.ledger import files, runner
from hjbridge.ledger.results import load_chapter


def test_a_chapter_runs_small_and_from_another_seed(chapter, tmp_path):
    committed = {path: path.read_bytes() for path in [files.notebooks()[chapter], *files.committed().rglob("*.json")]}
    folder = runner.run([chapter], profile="smoke", seed=3, jobs=1, folder=Path(os.path.relpath(tmp_path / "stage")))
    written = folder / "data" / "results" / f"ch{chapter}.json"
    run = json.loads(written.read_text(encoding="utf-8"))["run"]
    assert (run["profile"], run["seed"]) == ("smoke", 3)
    assert load_chapter(written).keys() == load_chapter(files.committed() / f"ch{chapter}.json").keys()
    assert {path: path.read_bytes() for path in committed} == committed
