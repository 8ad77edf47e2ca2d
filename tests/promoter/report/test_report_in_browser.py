"""The report in a real Chromium: nothing fails, every figure is drawn, logos zoom and move by mouse and keys."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.browser import Browser, chromium, missing
from support.reports import EVIL, LENGTH, RunFiles, write_run

from promoter.palette import BASE_COLOURS
from promoter.report.build import build_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]
_DRAWN = "return [...document.querySelectorAll('.chart')].every(c => c.querySelector('svg.marks, canvas.marks'))"
# the share of a canvas's pixels that something is drawn on
_PIXELS = """
const canvas = arguments[0];
const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
let drawn = 0;
for (let i = 3; i < data.length; i += 4) drawn += data[i] > 0;
return drawn / (data.length / 4);
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    return write_run(tmp_path_factory.mktemp("made"), genes=8_000, scored=4)


@pytest.fixture(scope="module")
def page(files: RunFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    report = build_report(
        files.model,
        scores=files.scores,
        genes=files.ids,
        show=0,
        motifs=files.motifs,
        search=files.search,
        compare=files.run,
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.html)
    return path


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(started: Browser, page: Path) -> Browser:
    look(started, 1200, "light")
    started.open(page)
    started.until(_DRAWN)
    return started


def look(browser: Browser, width: int, scheme: str) -> None:
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.devtools(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
    )


def view(browser: Browser) -> tuple[float, float]:
    """Return what region of the first gene is shown, once it is drawn."""
    browser.script("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found: dict[str, Any] = browser.script("return {...document.querySelector('.viewer').dataset}")
    return float(found["from"]), float(found["to"])


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light")])
def test_every_figure_of_a_report_has_content_and_no_script_fails(
    started: Browser, page: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    look(started, width, scheme)
    started.open(page)
    started.until(_DRAWN)
    marks = started.script(
        "return Object.fromEntries([...document.querySelectorAll('.chart')].map(c =>"
        " [c.id, c.querySelectorAll('.mark-symbol path, .mark-rect path').length]))"
    )
    assert set(marks) == {
        "beside_plain_models", "predicted_against_observed", "error_by_chromosome", "learning_curve_mse",
        "learning_curve_r",
    }  # fmt: skip
    assert marks["beside_plain_models"] >= 2  # network and ridge; the mean has no r
    assert marks["error_by_chromosome"] >= 4
    assert marks["learning_curve_mse"] >= 10
    for canvas, least in (("#predicted_against_observed canvas", 0.02), (".detail", 0.05), (".overview", 0.02)):
        many = started.script(f"return document.querySelectorAll('{canvas}').length")
        for number in range(many):
            text = _PIXELS.replace("arguments[0]", f"document.querySelectorAll('{canvas}')[{number}]")
            assert started.script(text) > least, (canvas, number)
    assert started.script("return [...document.images].every(one => one.naturalWidth > 0)")
    assert started.script("return document.documentElement.scrollWidth") <= width
    background = started.script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(21, 25, 30)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert started.messages() == []
    started.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 50_000


def test_a_report_in_a_browser_fetches_nothing(browser: Browser) -> None:
    fetched = browser.script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []
    assert browser.messages() == []


def test_buttons_of_the_gene_view_zoom_and_move(browser: Browser) -> None:
    start, end = view(browser)
    middle = (start + end) / 2
    browser.click(".viewer [data-do=in]")
    nearer = view(browser)
    assert nearer[1] - nearer[0] == pytest.approx(0.6 * (end - start), abs=0.1)
    assert sum(nearer) / 2 == pytest.approx(middle, abs=0.1)
    browser.click(".viewer [data-do=out]")
    assert view(browser) == pytest.approx((start, end), abs=0.1)
    browser.click(".viewer [data-do=left]")
    assert view(browser)[0] == pytest.approx(start - 0.25 * (end - start), abs=0.1)
    browser.click(".viewer [data-do=all]")
    assert view(browser) == (0, LENGTH)
    browser.click(".viewer [data-do=tss]")  # zoomed out it cannot move
    assert view(browser) == (0, LENGTH)
    for _ in range(20):
        browser.click(".viewer [data-do=in]")
    start, end = view(browser)
    assert end - start == pytest.approx(12)  # no nearer
    assert browser.messages() == []


def test_letters_in_a_report_have_the_colours_of_the_figures_in_files(browser: Browser) -> None:
    for _ in range(20):
        browser.click(".viewer [data-do=in]")  # letters, not bars
    seen = browser.script(
        "const canvas = document.querySelector('.detail canvas') ?? document.querySelector('canvas.detail');"
        "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "const seen = new Set();"
        "for (let i = 0; i < data.length; i += 4) if (data[i + 3] === 255)"
        " seen.add('#' + [0, 1, 2].map(k => data[i + k].toString(16).padStart(2, '0')).join(''));"
        "return [...seen]"
    )
    start, end = (round(edge) for edge in view(browser))
    sequence = browser.script("return JSON.parse(document.getElementById('gene-data-1').textContent).sequence")
    expected = {BASE_COLOURS[base] for base in sequence[start + 1 : end - 1] if base in BASE_COLOURS}
    assert expected
    assert expected <= set(seen)


def test_keys_zoom_and_move_the_gene_view(browser: Browser) -> None:
    left, right, home, end = "\ue012", "\ue014", "\ue011", "\ue010"
    first = view(browser)
    browser.keys(".detail", "+")
    assert view(browser)[1] - view(browser)[0] < first[1] - first[0]
    browser.keys(".detail", "-")
    browser.keys(".detail", left)
    assert view(browser)[0] < first[0]
    browser.keys(".detail", right)
    assert view(browser) == pytest.approx(first, abs=0.1)
    browser.keys(".detail", home)
    assert view(browser)[0] == 0
    browser.keys(".detail", end)
    assert view(browser)[1] == LENGTH
    browser.keys(".detail", "0")
    assert view(browser) == (0, LENGTH)


def test_the_mouse_drags_the_gene_view_and_its_wheel_zooms_once_clicked(browser: Browser) -> None:
    first = view(browser)
    browser.wheel(".detail", 100)
    assert view(browser) == first  # the page was scrolled
    browser.point(".detail", 0, 0, to=(-100, 0))
    moved = view(browser)
    assert moved[0] > first[0]
    assert moved[1] - moved[0] == pytest.approx(first[1] - first[0], abs=0.1)
    browser.wheel(".detail", 100)
    assert view(browser)[1] - view(browser)[0] > moved[1] - moved[0]
    browser.wheel(".detail", -100)
    browser.wheel(".detail", -100)
    assert view(browser)[1] - view(browser)[0] < moved[1] - moved[0]


def test_the_gene_view_begins_at_the_strongest_bases_and_says_so(browser: Browser, files: RunFiles) -> None:
    said = browser.until("return document.querySelector('.readout').textContent.includes('strongest') &&"
                         " document.querySelector('.readout').textContent")  # fmt: skip
    assert "pattern_0" in said
    start, end = view(browser)
    hit = browser.script("return JSON.parse(document.getElementById('gene-data-1').textContent).hits[0]")
    assert start <= hit["start"] < hit["end"] <= end
    browser.point(".detail", 0, 0)
    pointed = browser.script("return document.querySelector('.readout').textContent")
    assert "contributes" in pointed
    assert "changed to" in pointed


def test_pointing_at_a_gene_names_it_and_a_name_runs_nothing(browser: Browser) -> None:
    place = browser.script(
        "window.alert = () => { window.ran = true; };"
        "const source = document.querySelector('[data-chart=predicted_against_observed]');"
        "const data = JSON.parse(source.textContent).data.genes;"
        "const i = data.gene.findIndex(name => name.includes('alert'));"
        "return [data.observed[i], data.predicted[i], data.gene[i]]"
    )
    assert place[2] == EVIL
    at = browser.script(
        "const c = document.querySelector('#predicted_against_observed canvas');"
        "c.scrollIntoView({block: 'center'});"
        "return [c.clientWidth, c.clientHeight]"
    )
    named = ""
    for x in range(-at[0] // 4, at[0] // 4, 3):  # along the diagonal there are genes
        browser.point("#predicted_against_observed canvas", x + 15, -x)
        named = browser.script("return document.querySelector('#vg-tooltip-element')?.textContent ?? ''")
        if "gene" in named:
            break
    assert "gene" in named
    assert "observed" in named
    assert browser.script("return window.ran === undefined")


def test_the_split_of_a_report_is_chosen_by_radio_buttons(browser: Browser) -> None:
    labels = browser.script(
        "return [...document.querySelectorAll('.vega-bind label')].map(one => one.textContent)"
    )
    assert labels == ["test", "val", "train"]
    ratio = _PIXELS.replace("arguments[0]", "document.querySelector('#predicted_against_observed canvas')")
    before = browser.script(ratio)
    browser.click(".vega-bind label:nth-of-type(3) input")
    browser.until(f"return (() => {{ {ratio} }})() !== {before}")


def test_all_controls_of_a_report_can_be_reached_by_keys_and_are_named(browser: Browser) -> None:
    nameless = browser.script(
        "return [...document.querySelectorAll('a, button, summary, [tabindex], img, canvas:not([aria-hidden])')]"
        ".filter(one => !(one.textContent.trim() || one.getAttribute('aria-label') || one.alt)"
        " && !one.closest('.chart')).map(one => one.outerHTML.slice(0, 100))"
    )
    assert nameless == []
    ids = browser.script("return [...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    targets = browser.script(
        "return [...document.querySelectorAll('a[href^=\"#\"]:not(.chart a)')].map(one => one.hash.slice(1))"
    )
    assert set(targets) <= set(ids)
    levels = browser.script("return [...document.querySelectorAll('h1,h2,h3,h4')].map(one => +one.tagName[1])")
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_the_report_prints_on_light_paper(browser: Browser) -> None:
    look(browser, 1200, "dark")
    printed = browser.devtools("Page.printToPDF", printBackground=True)["data"]
    assert len(printed) > 50_000
    browser.devtools("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.script("return getComputedStyle(document.querySelector('.detail')).filter") == "none"
    beyond = browser.script(  # paper is narrower than the screen that the charts were drawn for
        "document.body.style.width = '600px';"
        "const wide = [...document.querySelectorAll('.chart canvas, .chart svg.marks')]"
        ".map(one => [one, one.closest('figure')])"
        ".filter(([one, box]) => one.getBoundingClientRect().right > box.getBoundingClientRect().right + 1)"
        ".map(([one, box]) => box.id);"
        "document.body.style.width = '';"
        "return wide"
    )
    assert beyond == []
    browser.devtools("Emulation.setEmulatedMedia", media="", features=[])
