"""The page in a real browser: a prompt is typed, a picture and its time appear, the versions stand side by side."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from tests.served_model import changed_package, promote
from tests.service.test_app import served
from twinflow_core.registry.registry import Registry
from twinflow_core.runtime.channel_follower import ChannelFollower
from twinflow_core.runtime.generator import Generator
from twinflow_core.service.app import Limits

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTH = "image => image.decode().then(() => image.naturalWidth)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)} is on the path")
    with sync_playwright() as playwright:
        try:
            # In a container the browser's own sandbox is not to be had; it sees one loopback page.
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"the browser does not start here: {error}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


def test_a_person_draws_and_compares(
    page: Page, registry: Registry, sized_package: Path, tmp_path: Path
) -> None:
    folders = [changed_package(sized_package, tmp_path / f"x{factor}", factor) for factor in (1, 2)]
    old, new = (registry.publish(folder, {"run": folder.name}, {}) for folder in folders)
    promote(registry, "production", old)
    promote(registry, "production", new)
    follower = ChannelFollower(registry, "production", tmp_path / "cache")
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    with served(Generator.following(follower, "cpu", 1, 4, 0.0), Limits()) as address:
        page.goto(f"http://{address}/")
        expect(page.locator("#model")).to_contain_text(f"version {new[:12]}, generation 2")
        page.fill("#prompt", "a blue square")
        page.select_option("#steps", "2")
        page.click("#draw")
        caption = page.locator("#champion figcaption")
        expect(caption).to_contain_text(f"champion {new[:12]}")
        expect(caption).to_contain_text("ms in the service")
        picture = page.locator("#champion img")
        assert picture.evaluate(WIDTH) == 32
        expect(picture).to_have_attribute("alt", "a blue square")
        expect(page.locator("#previous")).to_be_hidden()
        page.check("#beside")
        page.click("#draw")
        expect(page.locator("#previous figcaption")).to_contain_text(f"previous {old[:12]}", timeout=30_000)
        assert page.locator("#previous img").evaluate(WIDTH) == 32
        before = picture.get_attribute("src")
        page.click("#next")
        expect(page.locator("#seed")).to_have_value("1")
        expect(picture).not_to_have_attribute("src", before or "")
        page.select_option("#size", "64x32")
        before = picture.get_attribute("src")
        page.click("#draw")
        expect(picture).not_to_have_attribute("src", before or "")
        assert picture.evaluate(WIDTH) == 64
        assert faults == []


def test_a_refusal_is_shown(page: Page, tiny_package: Path) -> None:
    generator = Generator.from_folder(tiny_package, "cpu", threads=1, batch=1)
    with served(generator, Limits()) as address:
        page.goto(f"http://{address}/")
        expect(page.locator("#beside-label")).to_be_hidden()
        expect(page.locator("#size-label")).to_be_hidden()
        page.fill("#seed", "-1")
        page.locator("#form").evaluate("form => form.noValidate = true")
        page.click("#draw")
        expect(page.locator("#fault")).to_contain_text("seed")
        expect(page.locator("#champion")).to_be_hidden()
