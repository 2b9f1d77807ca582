"""Code fits where it is read, and what does not fit on a phone says that it scrolls."""

import pytest

RENDERED = "async () => { await (window.MathJax?.startup?.promise ?? null); }"
SETTLED = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
CELLS = """() => [...document.querySelectorAll(".cell:not(.tag_record, .tag_hide-input) .cell_input pre")].map(
  p => [p.scrollWidth - p.clientWidth, parseFloat(getComputedStyle(p).fontSize), p.textContent.slice(0, 60)])"""
SMALL = """() => [...document.querySelectorAll("article pre, article code")].filter(
  e => e.offsetParent && parseFloat(getComputedStyle(e).fontSize) < 14).map(e => e.textContent.slice(0, 60))"""
#: what may be wider than its box: all that scrolls, hidden texts for readers of screens and pieces of formulas aside
HIDDEN = """() => [...document.querySelectorAll("article *")].filter(e => {
  const style = getComputedStyle(e);
  return e.offsetParent && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
    && !["visible", "clip"].includes(style.overflowX) && style.textOverflow !== "ellipsis"
    && !e.closest("mjx-assistive-mml") && !(e.matches("span.math") && e.querySelector("mjx-container:not([display])"));
}).filter(e => !(e.classList.contains("reaches-on") && e.tabIndex === 0))
  .map(e => [e.tagName, e.className.toString(), e.scrollWidth, e.clientWidth, e.textContent.slice(0, 60)])"""
LONELY = """() => [...document.querySelectorAll(".book-together")].filter(box => {
  const last = box.lastChild;
  if (last.nodeType !== Node.TEXT_NODE) return false;
  const range = document.createRange(), before = box.lastElementChild.getClientRects();
  range.selectNodeContents(last);
  const mark = range.getBoundingClientRect(), word = before[before.length - 1];
  return mark.width && mark.top > word.bottom - 1;
}).map(box => box.textContent.slice(-40))"""
BARE = """() => [...document.querySelectorAll("article a.result, article .book-badge, article span.math")].filter(
  e => e.nextSibling?.nodeType === Node.TEXT_NODE && /^[.,;:]/.test(e.nextSibling.data)
       && !e.closest(".book-together")).map(e => e.parentElement.textContent.slice(0, 80))"""


def opened(browser, url, width):
    window = browser.new_context(viewport={"width": width, "height": 900})
    page = window.new_page()
    page.goto(url, wait_until="load")
    page.evaluate(RENDERED)
    page.evaluate(SETTLED)
    return window, page


@pytest.fixture(scope="module")
def chapters(pages):
    return [name for name in pages if name.startswith("notebooks/")]


@pytest.mark.parametrize("width", [1280, 1024])
def test_no_shown_code_is_wider_than_its_cell(browser, address, chapters, width):
    for name in chapters:
        window, page = opened(browser, f"{address}/{name}", width)
        cells = page.evaluate(CELLS)
        assert cells and not [cell for cell in cells if cell[0] > 0], name
        assert min(cell[1] for cell in cells) >= 14, name
        window.close()


@pytest.mark.parametrize("width", [1280, 1024])
def test_eighty_columns_fit_and_ninety_do_not(browser, address, chapters, width):
    window, page = opened(browser, f"{address}/{chapters[0]}", width)
    first = "document.querySelector('.cell:not(.tag_record, .tag_hide-input) .cell_input pre')"
    for columns, fits in ((80, True), (90, False)):
        page.evaluate(f"{first}.textContent = 'x'.repeat({columns})")
        assert (page.evaluate(CELLS)[0][0] <= 0) is fits
    window.close()


def test_code_is_large_enough_to_read(browser, address, pages):
    for name in pages:
        window, page = opened(browser, f"{address}/{name}", 1280)
        assert not page.evaluate(SMALL), name
        window.close()


def test_what_a_phone_cuts_off_says_that_it_scrolls(browser, address, pages):
    for name in pages:
        window, page = opened(browser, f"{address}/{name}", 390)
        assert not page.evaluate(HIDDEN), name
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        window.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_no_punctuation_begins_a_line(browser, address, chapters, width):
    for name in chapters:
        window, page = opened(browser, f"{address}/{name}", width)
        assert page.locator(".book-together").count() > 20, name
        assert not page.evaluate(LONELY) and not page.evaluate(BARE), name
        window.close()


def test_chapters_carry_their_numbers(browser, address, chapters):
    window, page = opened(browser, f"{address}/{chapters[0]}", 1280)
    entries = page.locator(".bd-sidebar-primary nav a").all_inner_texts()
    assert [entry[:3] for entry in entries if entry[:2].isdigit()] == [f"{name[10:12]} " for name in chapters]
    assert page.locator("article h1").inner_text().startswith("From Bellman")
    assert page.locator(".prev-next-footer .right-next").inner_text().split("\n")[-1].startswith("02 ")
    window.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_how_to_cite_opens_in_sight(browser, address, width):
    window, page = opened(browser, f"{address}/book/notation.html", width)
    page.locator(".book-footer summary").click()
    box = page.locator(".book-footer pre").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 900 and box["height"] > 40
    window.close()
