"""A chapter in a real JupyterLab, as `make lab`, the download and the rocket show it: readable, and it runs."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from hjbridge.ledger import files, result
from hjbridge.ledger.reading import Book, write

#: enough for a loaded machine; an idle one needs twenty seconds for the chapter
PATIENCE = 300
WIDGET = "window.jupyterapp.shell.currentWidget"
#: the whole notebook: cells out of sight are not in the page, so that their states are asked of the model
STATE = """() => {
  const widget = window.jupyterapp.shell.currentWidget;
  const cells = [...Array(widget.model.cells.length).keys()].map(k => widget.model.cells.get(k).toJSON());
  const code = cells.filter(cell => cell.cell_type === "code");
  return {
    count: code.length,
    ran: code.filter(cell => cell.execution_count !== null).length,
    outputs: code.filter(cell => cell.outputs.length).length,
    errors: code.flatMap(cell => cell.outputs).filter(o => o.output_type === "error").map(o => o.evalue),
    printed: code.flatMap(cell => cell.outputs).flatMap(o => ["\\n", o.text ?? o.data?.["text/plain"]].flat()).join(""),
    kernel: widget.sessionContext.session?.kernel?.status,
  };
}"""
#: text of a cell, once its formulas are set
READ = """async k => {
  const cell = window.jupyterapp.shell.currentWidget.content.widgets[k], words = () => cell.node.innerText.trim();
  if (cell.model.type !== "markdown") return "";
  await cell.ready;
  for (let tries = 0; tries < 400 && (!words() || words().includes("$")); tries++)
    await new Promise(go => setTimeout(go, 50));
  const faults = [...cell.node.querySelectorAll("mjx-merror, [data-mjx-error]")];
  return words() + faults.map(fault => "formula: " + fault.outerHTML).join("");
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of all chapters, as `make lab` writes them."""
    folder = tmp_path_factory.mktemp("reading")
    write(folder, Book(files.root()))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the copies, started in another folder; its user has no home and no settings."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.root_dir": folder, "ServerApp.port": port, "ServerApp.port_retries": 0, "ServerApp.allow_root": True,
        "IdentityProvider.token": "reader", "LabApp.expose_app_in_browser": True,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment["HJBRIDGE_RESULTS"] = str(elsewhere / "results")
    with (elsewhere / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=elsewhere, env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    f"http://127.0.0.1:{port}/api/status?token=reader", timeout=5
                ).close()
                break
            except OSError:
                told = (elsewhere / "log").read_text()
                assert server.poll() is None and time.monotonic() < end, told[-2000:]
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="module")
def page(address: str, browser: Browser) -> Iterator[Page]:
    window = browser.new_context(viewport={"width": 1280, "height": 900})
    found = window.new_page()
    found.set_default_timeout(1000 * PATIENCE)
    yield found
    window.close()


def opened(page: Page, address: str, name: str) -> None:
    """Show one notebook, its kernel idle."""
    page.goto(f"{address}/lab/tree/{name}?token=reader&reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-RenderedMarkdown")
    page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )


def test_a_chapter_is_readable(page, address, folder):
    opened(page, address, next(folder.glob("01_*.ipynb")).name)
    seen = ""
    for k in range(page.evaluate(f"() => {WIDGET}.content.widgets.length")):  # JupyterLab renders what is in sight
        page.evaluate(f"k => {WIDGET}.content.scrollToItem(k, 'start')", k)
        seen += page.evaluate(READ, k) + "\n"
    assert f" {result('ch01.gap_policy', files.committed()).text()} " in seen
    assert "C05 (reproduced)" in seen and "Jia and Zhou (2022)" in seen and re.search(r"Figure \d+\. \w", seen)
    assert not (raw := re.search(r".*(\{[\w:]+\}`|:::|\\tag|\$|formula: ).*", seen)), raw[0]
    folded = page.evaluate(f"() => {WIDGET}.content.widgets.filter(cell => cell.inputHidden).length")
    assert folded > 5, "recorded cells show one line of their code"


def test_a_chapter_runs_from_top_to_bottom_and_tells_what_it_records(page, address, folder):
    opened(page, address, next(folder.glob("01_*.ipynb")).name)
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_role("menuitem", name="Clear Outputs of All Cells", exact=True).click()
    assert page.evaluate(STATE)["outputs"] == 0
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(f"""() => {{
      const state = ({STATE})();
      return state.errors.length || (state.ran === state.count && state.kernel === "idle");
    }}""")
    state = page.evaluate(STATE)
    assert state["errors"] == [] and state["outputs"] > 20
    assert "\nch01.gap_policy = " in state["printed"] and "C05 reproduced" in state["printed"]
