"""A headless Chromium drives the page against the real service."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serve.viewer_block import (
    BLOCK_HU,
    assert_block_in_box,
    block_finding,
    chosen_box,
    odd_axes,
    phantom_with_block,
)

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium")

SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
HOSTILE = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_WEBGL)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page in which nothing may go wrong in silence, nor leave for another host."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800},
        color_scheme="dark",
        permissions=["clipboard-read", "clipboard-write"],
    )
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    complaints: list[str] = []
    hosts: set[str] = set()
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    opened.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    yield opened
    context.close()
    # A refusal that a test asks for is logged by the browser as well; it names the resource.
    assert [c for c in complaints if "Failed to load resource" not in c] == []
    assert len({host for host in hosts if host}) <= 1, hosts


def show(page: Any, url: str, files: list[Path]) -> None:
    """Send files, wait for the result with its slices."""
    page.goto(url)
    page.wait_for_selector("#limits:not(:empty)")
    page.set_input_files("#files", [str(path) for path in files])
    page.wait_for_selector("body[data-view=progress]")
    page.wait_for_selector("body[data-view=result]")
    page.wait_for_selector("#frame[data-slice]")
    page.wait_for_selector("#stage-message", state="hidden")


def settle(page: Any) -> None:
    """Wait until what was asked for is drawn."""
    page.evaluate("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


def shown_slice(page: Any) -> int:
    settle(page)
    return int(page.get_attribute("#frame", "data-slice"))


def picture(page: Any) -> np.ndarray:
    """What the frame shows, (y, x, 3)."""
    settle(page)
    content = page.locator("#frame").screenshot()
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.int16)


def colour(page: Any) -> float:
    """Which share of the frame is not grey."""
    return float((np.ptp(picture(page), axis=2) > 20).mean())


@pytest.fixture(scope="module")
def done(service: Any, study: Any) -> str:
    """The address of a finished job."""
    with httpx.Client(base_url=service.url, timeout=60.0) as client:
        job = client.post("v1/jobs", files=study.upload()).json()
        while job["state"] in ("queued", "running"):
            job = client.get(f"v1/jobs/{job['id']}", params={"wait": 10}).json()
        assert job["state"] == "done"
        assert job["series"][0]["findings"], "the phantom holds lesions"
    return f"{service.url}#job={job['id']}"


def reopen(page: Any, address: str) -> int:
    """Open a finished job by its address; how many slices there are."""
    page.goto(address)
    page.wait_for_selector("#frame[data-slice]")
    page.wait_for_selector("#stage-message", state="hidden")
    return int(page.get_attribute("#slider", "max")) + 1


def test_a_study_from_upload_to_its_findings(page: Any, service: Any, study: Any) -> None:
    show(page, service.url, study.files)
    top = int(page.get_attribute("#slider", "max"))
    first = page.locator(".sentence").first
    first.click()
    at = shown_slice(page)
    cited = first.get_attribute("data-ids").split()[0]

    page.locator("#overlay").hover()
    page.keyboard.press("End")
    assert shown_slice(page) == 0
    page.keyboard.press("Home")
    assert shown_slice(page) == top
    page.mouse.wheel(0, 100)
    page.keyboard.press("ArrowDown")
    assert shown_slice(page) == top - 2

    # The sentence brings its slice back; its box, its row and itself are chosen.
    page.keyboard.press("Home" if at < top else "End")
    page.keyboard.press("Escape")
    assert page.locator(".sentence.chosen").count() == 0
    first.click()
    assert shown_slice(page) == at
    assert first.get_attribute("aria-pressed") == "true"
    assert page.locator(f"tr[data-ids={cited}].chosen").count() == 1

    # Back: a click on the edge of the box, as seen, chooses the sentence.
    left, top_edge, _, bottom = chosen_box(picture(page))
    page.keyboard.press("Escape")
    assert page.locator(".sentence.chosen").count() == 0
    page.locator("#frame").click(position={"x": left + 1, "y": (top_edge + bottom) / 2})
    assert page.locator(".sentence.chosen").count() >= 1

    # What somebody wrote into the DICOM text is nowhere on the page.
    assert page.evaluate("window.hit") is None
    assert "alert(" not in page.content()


def test_windows_attention_and_themes(page: Any, done: str) -> None:
    slices = reopen(page, done)
    before = picture(page)
    page.click("[data-preset=lung]")
    page.wait_for_selector("#corner-window:has-text('W 1500')")
    assert np.abs(picture(page) - before).mean() > 5

    page.keyboard.press("End")
    page.click("#attention")
    page.wait_for_selector("#corner-more:not(:empty)")
    strongest = {}
    for _ in range(slices):
        strongest[shown_slice(page)] = page.inner_text("#corner-more")
        page.keyboard.press("ArrowUp")
    place = max(strongest, key=lambda at: strongest[at])
    assert strongest[place] > "attention up to 0.2"
    page.locator("#slider").fill(str(place))
    covered = colour(page)
    page.click("#attention")
    assert covered > colour(page), "attention is in colour"

    dark = "rgb(13, 17, 22)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark
    page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    page.keyboard.press("?")
    assert page.locator("#help-dialog[open]").count() == 1


def test_the_report_and_every_file_can_be_taken_along(page: Any, done: str) -> None:
    reopen(page, done)
    page.keyboard.press("c")
    page.wait_for_selector(".toast")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert page.locator(".sentence").first.inner_text() in copied
    assert "Not a medical device" in copied
    for kind, start in {"sr": b"DICM", "seg": b"DICM", "fhir": b"{", "pdf": b"%PDF"}.items():
        with page.expect_download() as download:
            page.click(f"[data-download={kind}]")
        content = Path(download.value.path()).read_bytes()
        assert content[128:132] == start or content.startswith(start), kind


def test_boxes_lie_where_the_patient_says(page: Any, service: Any, tmp_path: Path) -> None:
    """A bright block in the left front of the chest, in a file whose axes run P, I, R.

    The detector need not find it, so the answer about findings is replaced by its true box.
    """
    path = odd_axes(phantom_with_block(), tmp_path / "block.nii.gz")
    truth: dict[str, Any] = {}

    def findings(route: Any) -> None:
        place = route.request.url.replace("/findings", "/volume")
        truth.update(block_finding(httpx.get(place).content, HOSTILE))
        route.fulfill(json=[truth])

    def report(route: Any) -> None:
        told = route.fetch().json()
        told["sentences"] = [
            {"section": "findings", "text": HOSTILE, "finding_ids": ["F1"], "score": 0.9}
        ]
        told["needs_review"] = True
        told["review_reasons"] = [HOSTILE]
        route.fulfill(json=told)

    page.route("**/findings?*", findings)
    page.route("**/report?*", report)
    show(page, service.url, [path])
    page.click("[data-preset=bone]")

    for plane in ("axial", "coronal", "sagittal"):
        page.click(f"[data-plane={plane}]")
        shot = picture(page)
        assert_block_in_box(shot)
        left, top, right, bottom = chosen_box(shot)
        height, width = shot.shape[:2]
        sides = ("left", "right", "top", "bottom")
        letters = [page.inner_text(f"#letter-{side}") for side in sides]
        if plane == "axial":
            assert letters == ["R", "L", "A", "P"]
            assert (left + right) / 2 > width / 2 and (top + bottom) / 2 < height / 2
        elif plane == "coronal":
            assert letters == ["R", "L", "H", "F"]
            assert (left + right) / 2 > width / 2
        else:
            assert letters == ["A", "P", "H", "F"]
            assert (left + right) / 2 < width / 2
        for _ in range(3):
            page.keyboard.press("+")
        assert_block_in_box(picture(page))
        x, y = (left + right) / 2, (top + bottom) / 2
        frame = page.locator("#frame").bounding_box()
        page.mouse.move(frame["x"] + x, frame["y"] + y)
        settle(page)
        assert f"{BLOCK_HU} HU" in page.inner_text("#corner-hu")
        page.mouse.down()
        page.mouse.move(frame["x"] + x + 40, frame["y"] + y + 25)
        page.mouse.up()
        assert_block_in_box(picture(page))
        page.keyboard.press("0")

    # Aspect: 6 mm slices and 2 mm pixels, a block of 30 mm each way.
    left, top, right, bottom = chosen_box(picture(page))
    assert (right - left) / (bottom - top) == pytest.approx(1.0, abs=0.1)

    # Markup from the service stays text.
    assert page.locator(".sentence").first.inner_text() == HOSTILE
    assert "onerror" in page.inner_text(".banner.review li")
    assert page.locator("#details img, #details script").count() == 0
    assert page.evaluate("window.hit") is None


def test_what_cannot_be_worked_on_is_told(page: Any, service: Any, tmp_path: Path) -> None:
    page.goto(service.url)
    page.wait_for_selector("#limits:not(:empty)")
    # Dropped, as a person would; nothing in it is an image.
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["no image at all"], "Doe^Jane.txt"));
            const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true });
            document.body.dispatchEvent(drop);
        }"""
    )
    page.wait_for_selector("#problem:not([hidden]), .banner.rejected, .banner.failed")
    assert "Doe" not in page.content()


def test_a_key_is_asked_for_and_ends_with_the_tab(
    page: Any, keyed_service: Any, study: Any
) -> None:
    page.goto(keyed_service.url)
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    page.set_input_files("#files", [str(path) for path in study.files[:2]])
    page.wait_for_selector("#problem:not([hidden])")
    page.wait_for_selector("#key-dialog[open]")
    key = keyed_service.keys["analyze"]
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.set_input_files("#files", [str(path) for path in study.files])
    page.wait_for_selector("body[data-view=result]")
    page.wait_for_selector("#frame[data-slice]")
    kept = page.evaluate("[JSON.stringify(localStorage), document.cookie, location.href].join()")
    assert key not in kept
    assert key in page.evaluate("JSON.stringify(sessionStorage)")
