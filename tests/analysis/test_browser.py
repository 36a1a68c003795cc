"""The report's page in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import trainables.records.names as n
from analysis.load import load_study
from analysis.report import write_report
from tests.made_up import confirmed, example_study, of_mae, point

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the report is opened in a browser where Playwright is installed (the extra browser)"
)
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")
DARK = "rgb(22, 25, 29)"
PATIENCE = 120_000
"""Milliseconds that a busy machine may take for anything."""
HOSTILE = "</script><img src=x onerror=alert(1)>$(touch harm)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A confirmed study with one network whose names are meant to do harm, and which is on the front."""
    study = example_study(tmp_path_factory.mktemp("results") / "made-up", trials=12)
    with (study / n.POINTS_FILE).open("a") as file:
        file.write(json.dumps(point(step_id="harm", accuracy=0.87, compression=64.0, importance=HOSTILE)) + "\n")
    confirmed(study, 0.5)
    return write_report(load_study(study))


@pytest.fixture(scope="module")
def of_errors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose measure is to be minimised."""
    return write_report(load_study(of_mae(example_study(tmp_path_factory.mktemp("results") / "mae", trials=4))))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The page, opened from the disk; at the end nothing was asked of anybody, and nothing went wrong."""
    yield from opened(browser, report)


def opened(browser: Any, report: Path) -> Iterator[Any]:
    context = browser.new_context(
        viewport={"width": 1300, "height": 900}, color_scheme="light", permissions=["clipboard-read", "clipboard-write"]
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("#front .points path")
    yield page
    context.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


def mark(page: Any, number: int = 0) -> tuple[float, float]:
    """Where a mark of the front's chart lies on the screen."""
    page.locator("#front").scroll_into_view_if_needed()
    box = page.locator("#front .points path").nth(number).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def control(page: Any, name: str) -> Any:
    """A control of the chart and the table."""
    return page.locator(f"#controls [name={name}]")


def column(page: Any, heading: str) -> list[str]:
    """The texts of a column of the table."""
    titles = page.locator("#networks th").all_inner_texts()
    at = next(index for index, title in enumerate(titles) if title.startswith(heading))
    return list(page.locator(f"#networks tbody td:nth-child({at + 1})").all_inner_texts())


def test_hover_tells_the_recipe_and_a_click_copies_the_command(page: Any) -> None:
    page.mouse.move(*mark(page))
    page.wait_for_selector("#front .hoverlayer .hovertext")
    told = page.locator("#front .hoverlayer .hovertext").text_content()
    assert "structured: " in told and "validation accuracy" in told and "cut" in told
    page.mouse.click(*mark(page))
    page.wait_for_selector("#said:not([hidden])")
    said = page.locator("#said").inner_text()
    assert said.startswith("Copied: python -m search export ") and " --point " in said
    assert page.evaluate("navigator.clipboard.readText()") == said.removeprefix("Copied: ")


def test_a_heading_sorts_with_the_mouse_and_with_the_keyboard(page: Any) -> None:
    heading = page.locator("#networks th button", has_text="before retraining")
    heading.click()
    falling = [float(text.rstrip("%")) for text in column(page, "before retraining")]
    assert len(falling) > 5 and falling == sorted(falling, reverse=True)
    page.keyboard.press("Enter")  # the heading keeps the focus
    rising = [float(text.rstrip("%")) for text in column(page, "before retraining")]
    assert rising == sorted(rising) and rising != falling
    assert page.locator("#networks th[aria-sort=ascending]").inner_text().startswith("before retraining")


def test_filters_leave_the_same_networks_in_the_table_and_on_the_chart(page: Any) -> None:
    everything = page.locator("#front .points path").count()
    control(page, "family").select_option("structured")
    assert set(column(page, "family")) == {"structured"}
    fewer = page.locator("#front .points path").count()
    assert 0 < fewer < everything
    control(page, "words").fill("lamp")
    assert all("lamp" in recipe for recipe in column(page, "recipe")) and column(page, "recipe")
    control(page, "words").fill("nothing has this")
    assert column(page, "recipe") == [] and page.locator("#shown").inner_text().startswith("0 of ")
    control(page, "words").fill("")
    control(page, "family").select_option("")
    control(page, "front").check()
    assert page.locator("#networks tbody tr").count() == page.locator("#networks tr.on-front").count() > 0


@pytest.mark.parametrize(
    "axis, title", [("macs", "MACs"), ("bytes", "bytes of the file"), ("sparsity", "achieved sparsity")]
)
def test_the_axis_can_be_changed(axis: str, title: str, page: Any) -> None:
    assert "compression" in page.locator("#front .xtitle").text_content()
    control(page, "axis").select_option(axis)
    assert page.locator("#front .xtitle").text_content() == title


def test_confirmed_numbers_can_be_shown_alone(page: Any) -> None:
    control(page, "split").select_option("test")
    assert page.locator("#front .ytitle").text_content() == "test accuracy"
    control(page, "confirmed").select_option("no")
    assert set(column(page, "test accuracy")) == {"–"}


def test_of_a_measure_to_be_minimised_the_better_are_on_top_and_first(browser: Any, of_errors: Path) -> None:
    for page in opened(browser, of_errors):
        errors = [float(text) for text in column(page, "validation mean absolute error")]
        assert errors == sorted(errors) and len(set(errors)) > 3
        assert page.locator("#front .ytitle").text_content() == "validation mean absolute error"
        low, high = page.evaluate("document.getElementById('front').layout.yaxis.range")
        assert low > high and "%" not in page.locator("#front .ytick").first.text_content()
        line = page.evaluate("document.getElementById('front').data[0]")  # the best at each compression or beyond
        assert line["y"] == sorted(line["y"]) and line["x"] == sorted(line["x"]) and len(line["y"]) > 2


def test_dark_is_dark(page: Any) -> None:
    def sheet() -> list[str]:
        return [str(page.evaluate(f"getComputedStyle(document.querySelector('{one}')).{what}"))
                for one, what in (("body", "backgroundColor"), ("#front .main-svg", "background"))]  # fmt: skip

    light = sheet()
    page.emulate_media(color_scheme="dark")
    wait_until(page, "getComputedStyle(document.querySelector('#front .main-svg')).backgroundColor == 'rgb(22, 25, 29)'")
    assert all(DARK in one and "255" not in one for one in sheet()) and all("255" in one for one in light)


def wait_until(page: Any, condition: str) -> None:
    """Playwright's own way to wait would evaluate text in the page, which the page forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def test_a_phone_shows_it_without_scrolling_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    wait_until(page, "document.querySelector('#front .main-svg').getBoundingClientRect().width < 390")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_names_that_would_do_harm_are_text_and_the_command_is_safe_to_paste(page: Any) -> None:
    control(page, "words").fill("onerror")
    assert column(page, "recipe")[0].startswith(HOSTILE) and page.locator("img[onerror]").count() == 0
    page.mouse.move(*mark(page))
    page.wait_for_selector("#front .hoverlayer .hovertext")
    assert "<img src=x" in page.locator("#front .hoverlayer .hovertext").text_content()


def test_without_scripts_the_front_is_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.goto(report.as_uri())
    assert opened.locator("#networks tbody tr").count() > 3 and opened.locator(".static img").first.is_visible()
    context.close()
