"""The filters of the pages of claims and results, in a browser, with scripts and without."""

from urllib.parse import parse_qs, urlparse

import pytest

from hjbridge.ledger import all_results
from hjbridge.ledger.claims import load_claims


@pytest.fixture
def page(browser):
    window = browser.new_context(viewport={"width": 1280, "height": 900})
    yield window.new_page()
    window.close()


def shown(page):
    return page.locator(".book-entry:visible").count()


def test_claims_are_filtered_by_verdict_and_chapter_and_the_address_says_so(page, address):
    claims = load_claims()
    page.goto(f"{address}/book/claims.html")
    assert shown(page) == len(claims)
    page.get_by_label("Chapter").select_option("02")
    of_chapter = [claim for claim in claims.values() if claim.chapter == "02"]
    assert shown(page) == len(of_chapter) < len(claims)
    assert page.locator(".book-filter output").inner_text() == f"{len(of_chapter)} of {len(claims)} claims"
    page.get_by_label("Verdict").select_option("open")
    assert shown(page) == 1 and page.locator(".book-entry:visible").inner_text().startswith("R2")
    assert parse_qs(urlparse(page.url).query) == {"verdict": ["open"], "chapter": ["02"]}
    page.goto(page.url)
    assert shown(page) == 1 and page.get_by_label("Verdict").input_value() == "open"
    page.get_by_label("Verdict").select_option("")
    page.get_by_label("Words").fill("Moon FUEL")
    assert shown(page) == 1 and page.locator(".book-entry:visible").inner_text().startswith("C13")
    page.get_by_label("Words").fill("nobody says this")
    assert shown(page) == 0
    page.goto(f"{address}/book/claims.html?verdict=open#claim-c05")
    assert page.locator(":target").is_visible(), "a link shows its target, whatever was filtered"


def test_results_are_found_by_words_and_opened_by_a_link(page, address):
    page.goto(f"{address}/book/results.html")
    assert shown(page) == 0, "folded by chapter"
    assert page.locator(".book-filter output").inner_text() == f"{len(all_results())} numbers"
    page.get_by_label("Words").fill("lspi_whole")
    assert shown(page) == 1 and page.locator("section h2:visible", has_text="Chapter 02").count() == 0
    page.get_by_label("Words").fill("")
    assert shown(page) == 0, "folded again"
    page.goto(f"{address}/book/results.html#result-ch02-hje-idle")
    entry = page.locator(":target")
    assert entry.locator(".book-facts").is_visible() and shown(page) == 66
    link = entry.locator(".book-used a", has_text="02 ").first
    link.click()
    page.wait_for_url("**/02_exact_problems.html#*")
    assert page.locator(":target").count() == 1


@pytest.mark.parametrize("name", ["claims", "results"])
def test_without_scripts_everything_is_there_and_no_dead_control(browser, address, name):
    window = browser.new_context(java_script_enabled=False)
    plain = window.new_page()
    plain.goto(f"{address}/book/{name}.html")
    assert plain.locator("form.book-filter:visible").count() == 0
    if name == "claims":
        assert plain.locator(".book-entry:visible").count() == len(load_claims())
    else:
        plain.locator("details.book-group > summary").nth(1).click()
        assert plain.locator(".book-entry:visible").count() == 66
    window.close()
