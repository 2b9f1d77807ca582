"""What only a browser shows: scripts, mathematics, contrast, widths, search. Chromium, served on this machine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
#: rules that the theme or docutils breaks and a page of ours cannot mend, with what breaks them
THEIRS = {
    "label-content-name-mismatch": "search button of the theme",
    "aria-required-children": "list of citations of docutils",
    "aria-deprecated-role": "list of citations of docutils",
}
RENDERED = "async () => { await (window.MathJax?.startup?.promise ?? null); }"
LOOK = """() => {
  const article = document.querySelector("article"), seen = i => i.getClientRects().length > 0;
  const shown = [...article.querySelectorAll("img")].filter(seen);
  return {
    formulas: article.querySelectorAll(".math").length,
    rendered: article.querySelectorAll("mjx-container").length,
    errors: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map(e => e.textContent),
    raw: /\\\\\\(|\\\\\\[/.test(article.innerText),
    broken: shown.filter(i => !i.complete || i.naturalWidth === 0).map(i => i.alt),
    figures: shown.map(i => [i.naturalWidth, i.getBoundingClientRect().width]),
    width: document.documentElement.scrollWidth,
    window: innerWidth,
    paper: getComputedStyle(document.body).backgroundColor,
  };
}"""
#: a page is audited in full once; dark changes colours only. Formulas are outlines in the colour of the text
SCOPE = {"light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "dark": ["color-contrast", "link-in-text-block"]}
AUDIT = """async scope => {
  const options = {preload: false, resultTypes: ["violations"], runOnly: scope};
  const found = (await axe.run({exclude: [["mjx-container"]]}, options)).violations;
  return found.filter(v => ["serious", "critical"].includes(v.impact))
              .map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html.slice(0, 160))]);
}"""


@dataclass
class Look:
    """What one visit to a page has shown."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    state: dict = field(default_factory=dict)
    violations: list = field(default_factory=list)


def context(browser: Browser, mode: str) -> BrowserContext:
    """A window: `light` and `dark` on a desk, `phone` in light."""
    scheme = "dark" if mode == "dark" else "light"
    return browser.new_context(viewport=PHONE if mode == "phone" else DESK, color_scheme=scheme)


ABORTED = "net::ERR_ABORTED"


def visit(page: Page, url: str, scope: list[str] | None) -> Look:
    """Open a page, wait for its mathematics, and note everything that went wrong."""
    look = Look()
    noted = [
        ("console", lambda m: look.complaints.append(m.text) if m.type in ("error", "warning") else None),
        ("pageerror", lambda e: look.complaints.append(str(e))),
        # what the next page makes the browser drop has not failed; what is not there answers with a status
        ("requestfailed", lambda r: look.complaints.append(f"failed: {r.url}") if r.failure != ABORTED else None),
        ("response", lambda r: look.complaints.append(f"{r.status}: {r.url}") if r.status >= 400 else None),
        ("request", lambda r: look.requests.append(r.url)),
    ]
    for event, note in noted:
        page.on(event, note)
    page.goto(url, wait_until="load")
    page.evaluate(RENDERED)
    look.state = page.evaluate(LOOK)
    if scope:
        page.add_script_tag(path=str(AXE))
        look.violations = page.evaluate(AUDIT, scope)
    for event, note in noted:
        page.remove_listener(event, note)
    return look


@pytest.fixture(scope="module")
def looks(browser: Browser, address: str, pages: list[str]) -> dict[tuple[str, str], Look]:
    """Every page in every mode, visited once."""
    found = {}
    for mode in ("light", "dark", "phone"):
        window = context(browser, mode)
        page = window.new_page()
        for name in pages:
            found[mode, name] = visit(page, f"{address}/{name}", SCOPE.get(mode))
        window.close()
    return found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    window = context(browser, "light")
    yield window.new_page()
    window.close()


def test_console_is_clean_and_nothing_fails_to_load(looks):
    assert not {key: look.complaints for key, look in looks.items() if look.complaints}


def test_no_request_leaves_the_machine(looks, address):
    for key, look in looks.items():
        assert look.requests, key
        assert not [url for url in look.requests if not url.startswith((f"{address}/", "data:", "blob:"))], key


def test_mathematics_is_rendered_without_errors(looks):
    for key, look in looks.items():
        state = look.state
        assert state["rendered"] >= state["formulas"] and not state["errors"] and not state["raw"], (key, state)
    assert looks["light", "book/notation.html"].state["rendered"] > 30


def test_no_picture_is_broken(looks):
    assert not {key: look.state["broken"] for key, look in looks.items() if look.state["broken"]}


def test_no_page_is_wider_than_a_phone(looks):
    wide = {key: look.state["width"] for key, look in looks.items() if look.state["width"] > look.state["window"]}
    assert not wide


def test_figures_are_legible_on_a_phone(looks):
    # text of 12 points at 100 dots per inch is 16.7 pixels high; at least 7.5 of them are shown
    shown = [(key, figure) for key, look in looks.items() if key[0] == "phone" for figure in look.state["figures"]]
    assert shown
    assert not [entry for entry in shown if entry[1][1] / entry[1][0] < 0.45]


def test_dark_pages_are_dark_and_light_ones_light(looks):
    for (mode, name), look in looks.items():
        red = int(look.state["paper"].partition("(")[2].partition(",")[0])
        assert red < 60 if mode == "dark" else red > 240, (mode, name, look.state["paper"])


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_no_serious_barrier_of_ours(looks, mode):
    found = {
        name: [violation for violation in look.violations if violation[0] not in THEIRS]
        for (of, name), look in looks.items()
        if of == mode
    }
    assert not {name: violations for name, violations in found.items() if violations}


def test_the_audit_sees_a_barrier(page, address):
    page.goto(f"{address}/book/quickstart.html")
    page.evaluate("document.querySelector('article').innerHTML += '<img src=\"../_static/logo.svg\">'")
    page.add_script_tag(path=str(AXE))
    assert "image-alt" in [violation[0] for violation in page.evaluate(AUDIT, SCOPE["light"])]


def test_search_finds_a_page_and_leads_to_it(page, address):
    page.goto(f"{address}/book/intro.html")
    page.locator("button.search-button:visible, .search-button-field:visible").first.click()
    page.locator("input[name=q]:visible").first.fill("memorises")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=memorises*")
    found = page.locator("#search-results li a")
    found.first.wait_for()
    assert any("Noise and its reverse" in text for text in found.all_inner_texts())
    found.first.click()
    page.wait_for_url(lambda url: "search.html" not in url)
    assert page.locator("article h1").count() == 1


def test_a_number_leads_to_its_protocol(page, address):
    page.goto(f"{address}/notebooks/05_noise_and_its_reverse.html")
    number = page.locator("a.result").first
    text = number.inner_text()
    number.click()
    page.wait_for_url("**/book/results.html#result-*")
    entry = page.locator(":target")
    assert entry.locator(".book-value").inner_text() == text and "Protocol" in entry.inner_text()


def test_page_can_be_cited(page, address):
    page.goto(f"{address}/book/notation.html")
    entry = page.locator(".book-footer pre")
    assert not entry.is_visible()
    page.locator(".book-footer summary").click()
    assert entry.is_visible() and entry.inner_text().startswith("@misc{hjbridge-notation")


def test_solutions_are_folded_and_open(page, address):
    page.goto(f"{address}/notebooks/05_noise_and_its_reverse.html")
    solution = page.locator("div.solution.toggle-hidden, div.solution.admonition").first
    content = solution.locator(".cell, p:not(.admonition-title)").first
    assert not content.is_visible() or content.evaluate("e => getComputedStyle(e).opacity") == "0"
    solution.locator("button.toggle-button").click()
    page.wait_for_timeout(600)
    assert content.is_visible() and content.evaluate("e => getComputedStyle(e).opacity") == "1"


@pytest.mark.parametrize("media", [{"media": "print"}, {"reduced_motion": "reduce"}])
def test_animations_stand_still_in_print_and_for_those_who_ask(page, address, media):
    page.goto(f"{address}/notebooks/05_noise_and_its_reverse.html")
    picture = page.locator("figure.animation img").first
    kind = "e => e.currentSrc.slice(0, 14)"
    assert picture.evaluate(kind) == "data:image/gif"
    page.emulate_media(**media)
    page.wait_for_timeout(300)
    assert picture.evaluate(kind) == "data:image/png"


def test_theme_can_be_switched_by_hand(page, address):
    page.goto(f"{address}/book/intro.html")
    seen = set()
    for _ in range(3):
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
        page.locator("button.theme-switch-button:visible").first.click()
    assert seen == {"light", "dark"}
