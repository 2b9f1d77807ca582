"""What can be seen in the HTML without a browser."""

import base64
import importlib
import json
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

from hjbridge.ledger import all_results, result
from hjbridge.ledger.claims import SLOT, VERDICTS, load_claims
from hjbridge.ledger.verdicts import status

ROOT = Path(__file__).resolve().parents[2]


@cache
def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def article(path: Path) -> Tag:
    found = soup(path).select_one("article")
    assert found is not None, path
    return found


def listed(toc: dict) -> list[str]:
    """Every file that _toc.yml names."""
    found = [toc["file"]] if "file" in toc else []
    for key in ("parts", "chapters", "sections"):
        for entry in toc.get(key, []):
            found += listed(entry)
    return found


def test_every_page_of_the_table_of_contents_is_built_with_its_footer(site):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    for name in [toc["root"], *listed(toc)]:
        page = soup(site / f"{name}.html")
        footer = page.select_one(".book-footer")
        assert footer is not None and re.search(r"hjbridge \d+\.\d+", footer.text), name
        assert "commit" in footer.text and "Cite this page" in footer.text, name
        assert footer.select_one("pre").text.startswith("@misc{hjbridge-"), name


def test_every_notebook_is_in_the_table_of_contents():
    toc = listed(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    missing = [path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb") if f"notebooks/{path.stem}" not in toc]
    assert not missing


def test_no_unit_is_printed_twice_on_the_page_of_claims(site):
    units = {entry.unit for entry in all_results(ROOT / "data" / "results").values() if entry.unit}
    assert {"%", "m/s", "nats", "bits/dim"} <= units
    twice = re.compile(rf"(?<![A-Za-z/])({'|'.join(map(re.escape, sorted(units)))})\s+\1(?![\w/])")
    assert twice.search("by 0.1% % of") and twice.search("3 m/s m/s,") and not twice.search("steps s")
    text = article(site / "book" / "claims.html").text
    assert [text[max(0, match.start() - 40) : match.end()] for match in twice.finditer(text)] == []


def test_no_traceback(site, pages):
    for name in pages:
        assert not soup(site / name).select(".cell_output .traceback"), name
        assert "Traceback (most recent call last)" not in article(site / name).text, name


def test_every_image_has_alternative_text(site, pages):
    for name in pages:
        for image in soup(site / name).select("img"):
            assert image.get("alt") is not None, (name, str(image)[:120])
        for image in article(site / name).select("img"):
            assert len(image["alt"].strip()) > 10, (name, str(image)[:120])


def test_figures_have_captions_and_their_alternative_text_is_not_the_caption(site, pages):
    for name in pages:
        for figure in article(site / name).select("figure"):
            caption, image = figure.select_one("figcaption"), figure.select_one("img")
            assert caption is not None and len(caption.text.split()) > 3, (name, str(figure)[:120])
            assert image is None or image["alt"].strip() != caption.text.strip(), name


@cache
def anchors(path: Path) -> set[str]:
    """Everything on a page that a fragment can name."""
    named = soup(path).select("[id], a[name]")
    return {tag.get(kind) for tag in named for kind in ("id", "name") if tag.get(kind)}


def rendered(site: Path) -> list[Path]:
    """Every page that a reader can open; `_static` holds a template of the theme."""
    return [page for page in site.rglob("*.html") if "_static" not in page.relative_to(site).parts]


def test_internal_links_and_anchors_resolve(site):
    broken, seen = [], 0
    for page in rendered(site):
        for tag in soup(page).select("[href], [src]"):
            link = tag.get("href") or tag.get("src") or ""
            url = urlparse(link)
            if url.scheme or url.netloc:
                continue
            seen += 1
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            if not target.is_file():
                broken.append((page.name, link))
            elif url.fragment and target.suffix == ".html" and unquote(url.fragment) not in anchors(target):
                broken.append((page.name, link))
    assert seen > 500 and not broken, broken[:20]


def test_nothing_is_loaded_from_elsewhere(site):
    remote = re.compile(r"(^|[\s,(\"'])(https?:)?//")
    for page in rendered(site):
        tree = soup(page)
        for tag in tree.select("link[href]"):
            assert set(tag.get("rel", [])) & {"canonical", "edit"} or not remote.search(tag["href"]), (page.name, tag)
        for name in ("src", "srcset", "poster", "data", "background"):
            loaded = [tag[name] for tag in tree.select(f"[{name}]") if remote.search(tag[name])]
            assert not loaded, (page.name, name, loaded)
        styled = [tag["style"] for tag in tree.select("[style]") if re.search(r"url\(.?(https?:)?//", tag["style"])]
        assert not styled, (page.name, styled)
        for script in soup(page).select("script:not([src])"):
            assert not re.search(r"""(import|src\s*=|fetch\()\s*["'](https?:)?//""", script.text), page.name
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8", errors="replace")
        assert not re.search(r"""(url\(|@import)\s*["']?(https?:)?//""", text), style.name


def test_every_chapter_shows_its_claim_check(site):
    for page in (site / "notebooks").glob("[0-9]*.html"):
        (table,) = article(page).select("table.claims")
        assert len(table.select("tbody tr")) >= 2, page.name


def test_thebe_is_gone(site):
    assert not list((site / "_static").glob("*thebe*"))
    for page in rendered(site):
        assert "thebe" not in page.read_text(encoding="utf-8").lower(), page.name


def test_every_claim_has_an_entry_with_a_verdict_in_words(site):
    page = article(site / "book" / "claims.html")
    claims = load_claims(ROOT / "data" / "claims.yml")
    assert len(claims) >= 10
    for id in claims:
        entry = page.find(id=f"claim-{id.lower()}")
        badge = entry.select_one(".book-badge")
        assert badge.text in VERDICTS, (id, badge)
        assert badge.text.replace(" ", "-") in badge["class"], id
    assert len(page.select(".book-entry")) == len(claims)


def test_a_claim_shows_its_finding_in_words_and_answers_to_the_menus(site):
    page = article(site / "book" / "claims.html")
    menus = {menu["name"]: [option["value"] for option in menu.select("option")] for menu in page.select("select")}
    for id, claim in load_claims(ROOT / "data" / "claims.yml").items():
        entry = page.find(id=f"claim-{id.lower()}")
        head = entry.select_one(".book-head")
        assert head["data-verdict"] == entry.select_one(".book-badge").text and head["data-verdict"] in menus["verdict"]
        assert head["data-chapter"] == claim.chapter and claim.chapter in menus["chapter"]
        entry.details.extract()
        words = " ".join(entry.find_all("p")[-1].get_text().split())
        words = words.replace("\N{MINUS SIGN}", "-").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
        finding = status(claim, result).ours if SLOT.search(claim.ours) else claim.correct
        assert words == " ".join(finding.split()), id
    assert page.select_one("form.book-filter").has_attr("hidden"), "without scripts nothing is filtered"


def test_every_recorded_number_has_an_entry(site):
    page = article(site / "book" / "results.html")
    for id, number in all_results(ROOT / "data" / "results").items():
        entry = page.find(id="result-" + re.sub(r"[._@]", "-", id))
        assert entry is not None, id
        assert entry.select_one(".book-value").text == number.text(), id


def test_results_are_folded_by_chapter_and_lead_back_to_where_they_are_used(site):
    page = article(site / "book" / "results.html")
    groups = page.select("section > details.book-group")
    assert len(groups) == 5 and not any(group.has_attr("open") for group in groups)
    assert sum(len(group.select(".book-entry")) for group in groups) == len(all_results(ROOT / "data" / "results"))
    used = page.find(id="result-ch02-hje-idle").select(".book-used a")
    targets = [link["href"] for link in used]
    assert "../notebooks/02_exact_problems.html#ch02-hundred" in targets or any("02_exact" in one for one in targets)
    assert "intro.html" in " ".join(targets)
    for box in page.select(".book-used"):
        id = box.parent.parent["id"]
        assert box.select("a") or id.endswith("-full"), f"{id} leads nowhere"
        assert "Recorded in " in box.text or id.endswith("-full"), id


def test_numbers_in_the_chapters_link_to_their_entries(site, pages):
    for name in pages:
        for link in article(site / name).select("a.result"):
            assert "results.html#result-" in link["href"], (name, link)


def test_all_chapters_are_listed_and_marked(site):
    rows = article(site / "book" / "intro.html").select("ol.book-chapters li")
    assert [row.select_one(".number").text for row in rows] == [f"{k:02d}" for k in range(1, 15)]
    there = {row.select_one(".number").text for row in rows if row.select_one("a")}
    assert there == {path.name[:2] for path in (site / "notebooks").glob("[0-9][0-9]_*.html")}
    assert {row.select_one(".book-badge").text for row in rows} <= {"there", "not yet"}


def test_notebooks_can_be_downloaded_and_opened_in_binder(site):
    for page in (site / "notebooks").glob("[0-9]*.html"):
        links = [link.get("href", "") for link in soup(page).select("a[href]")]
        assert any("mybinder.org/v2/gh/hjbridge/hjbridge" in link and page.stem in link for link in links), page.name
        assert any(link.endswith(f"{page.stem}.ipynb") and "_sources" in link for link in links), page.name


def test_the_reference_describes_the_public_names(site):
    """Each room has a page, and each public name stands in the table of one, under the name that users import."""
    rooms = (
        "sde score hjb hjb.problems hjb.methods hjb.schemes hjb.discrete hjb.certificate data metrics training plotting"
    )
    pages = {
        f"hjbridge.{room}": article(site / "book" / f"api_{room.split('.')[-1]}.html")
        for room in [*rooms.split(), "ledger"]
    }
    for room, page in pages.items():
        for mark in ("``", "\\*", "~collections", "<function", "object at 0x"):
            assert mark not in page.text, (room, mark)
        for name in getattr(package := importlib.import_module(room), "__all__", ()):
            value = getattr(package, name)
            if value.__doc__ and callable(value):
                outer = [r for r in pages if room.startswith(f"{r}.") and name in importlib.import_module(r).__all__]
                full = f"{(outer or [room])[0]}.{name}"
                shown = [other for other in pages.values() if other.find(id=full)]
                assert len(shown) == 1, full
                assert shown[0].select(f'table.book-summary a[href="#{full}"]'), full


@pytest.mark.parametrize(("folder", "limit"), [("mathjax", 3.0), ("fonts", 0.3)])
def test_vendored_files_are_small_and_carry_their_licence(site, folder, limit):
    files = list((site / "_static" / folder).iterdir())
    assert sum(path.stat().st_size for path in files) < limit * 1e6
    assert any(path.name == "LICENSE" for path in files)


def test_size_of_static_files(site):
    assert sum(path.stat().st_size for path in (site / "_static").rglob("*") if path.is_file()) < 16e6
    own = [path for path in (ROOT / "book" / "_static").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in own) < 3e6


def test_the_search_index_holds_the_pages(site, pages):
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    assert {f"{name}.html" for name in index["docnames"]} >= set(pages)
    assert "denois" in index["terms"]


def test_the_figure_of_the_introduction_is_the_committed_one_of_its_chapter(site):
    figure = article(site / "book" / "intro.html").select_one("figure")
    cells = json.loads((ROOT / "notebooks" / "06_ddpm.ipynb").read_text())["cells"]
    named = [c for c in cells if c["metadata"].get("mystnb", {}).get("figure", {}).get("name") == "fig-06-walk"]
    data = next(output["data"] for output in named[0]["outputs"] if "image/png" in output.get("data", {}))
    assert (site / "book" / figure.img["src"]).read_bytes() == base64.b64decode(data["image/png"])
    assert figure.img["alt"] == named[0]["metadata"]["mystnb"]["image"]["alt"]
    assert figure.figcaption.a["href"].endswith("06_ddpm.html#fig-06-walk")


def test_the_landing_page_answers_before_it_explains(site):
    page = article(site / "book" / "intro.html")
    surprises = page.select(".book-surprises li")
    assert len(surprises) == 3
    for item in surprises:
        assert item.select_one("a.claim.book-badge") and item.select("a.result"), item.text[:60]
    assert [link["href"] for link in page.select("a.sd-btn")] == [
        "../notebooks/01_bellman_to_hjb.html",
        "reproduce.html",
    ]
    order = [
        page.select_one(mark) for mark in ("figure", "a.sd-btn", ".book-surprises", "ol.book-chapters", "div.math")
    ]
    lines = [mark.sourceline * 10_000 + mark.sourcepos for mark in order]
    assert lines == sorted(lines)
