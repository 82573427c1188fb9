"""The labelling page in a real browser, by its keys: Chromium without a window."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from desks import Drop, texts
from runs import digest, picked, run

from rayal.desk.desk import Desk
from rayal.desk.server import served
from rayal.desk.show import Show
from rayal.errors import PoolError
from rayal.pool import Pool, ingest
from rayal.pool.recipes import fashion_mnist
from rayal.pool.recipes.arrays import fixed_list
from rayal.types import Vocabulary

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_WAIT_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium: one that is installed, else Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    place = next(filter(None, map(shutil.which, _NAMES)), None)
    with playwright.sync_playwright() as started:
        place = place or started.chromium.executable_path
        if not Path(place).exists():
            pytest.skip(f"no Chromium: none of {', '.join(_NAMES)} is installed, nor {place}")
        # Containers give their root no namespaces, which the sandbox wants.
        chromium = started.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def opened(browser: Any, address: str) -> Iterator[Any]:
    """A tab at an address, in a profile of its own; errors of its script fail the test."""
    context = browser.new_context()
    context.set_default_timeout(_WAIT_MS)
    tab = context.new_page()
    broken: list[str] = []
    tab.on("pageerror", lambda error: broken.append(str(error)))
    tab.goto(address)
    yield tab
    context.close()
    assert broken == []


def done(tab: Any, num_done: int, num_rows: int) -> None:
    """Waits until the page says that so many are answered."""
    count = tab.locator("#count", has_text=re.compile(f"^{num_done} of {num_rows}$"))
    count.wait_for()


def sample_id(tab: Any) -> int:
    """Gives the id of the row that is shown."""
    return int(tab.locator("#row p.small").text_content().split()[1].rstrip(","))


def press(tab: Any, *keys: str) -> None:
    for key in keys:
        tab.keyboard.press(key)


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """400 images of 28 x 28 in ten classes: Fashion-MNIST, or made up where it cannot be had."""
    folder = tmp_path_factory.mktemp("clothes")
    try:
        table = pa.table(next(fashion_mnist.read(None)).slice(0, 400))
    except PoolError:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (400, 784), dtype=np.uint8)
        labels = pa.array(rng.integers(0, 10, 400))
        table = pa.table({"image": fixed_list(pixels), "label": labels})
    pq.write_table(table, folder / "rows.parquet")
    return ingest(str(folder / "rows.parquet"), str(folder / "pool"), label_column="label")


def test_twenty_images_are_labelled_by_keyboard(browser: Any, clothes: Pool, tmp_path: Path):
    words = [
        f"pool.path={clothes.path}", f"run_dir={tmp_path / 'r'}", "labeler=terminal", "budget=20",
        "num_rounds=1", "model=linear", "model.transform.column=image", "trainer.epochs=1",
        "trainer.min_steps=5", "predictor.batch_rows=64",
    ]  # fmt: skip
    assert run(*words) == "waiting"
    (ids,) = picked(tmp_path / "r")
    truth = {int(i): int(clothes.secret_labels(np.array([i]))[0]) for i in ids}
    boxes = tmp_path / "r" / "labeler"
    show = Show({"image": (28, 28)})
    desk = Desk(boxes / "outbox", boxes / "inbox", "ann", show, hold_s=3600)
    with served(desk) as address, opened(browser, address) as tab:
        done(tab, 0, 20)
        assert "token" not in tab.url
        for number, expected in enumerate(ids):
            assert sample_id(tab) == expected
            image = tab.locator("#row img")
            assert image.evaluate("async one => (await one.decode(), one.naturalWidth)") == 28
            if number == 6:  # a wrong one, and it is taken back
                press(tab, str((truth[expected] + 1) % 10))
                done(tab, 7, 20)
                press(tab, "u")
                done(tab, 6, 20)
                assert sample_id(tab) == expected
            if number == 9:  # two of those that were handed over are taken back
                press(tab, "u")
                done(tab, 8, 20)
                press(tab, "Control+z")
                done(tab, 7, 20)
                for again in (7, 8):
                    assert sample_id(tab) == ids[again]
                    press(tab, str(truth[ids[again]]))
                    done(tab, again + 1, 20)
            if number == 12:
                tab.reload()
                done(tab, 12, 20)
                assert sample_id(tab) == expected
            press(tab, str(truth[expected]))
            done(tab, number + 1, 20)
        tab.get_by_text("all 20 rows are answered").wait_for()
        press(tab, "Enter")
        tab.locator("#over").wait_for(state="hidden")
    (path,) = (boxes / "inbox").glob("*/ann.jsonl")
    newest = {}
    for line in map(json.loads, path.read_text().splitlines()):
        newest[line["sample_id"]] = line["label"]
    assert newest == truth
    desk.close()
    assert run(*words) == "done"
    assert digest(tmp_path / "r")


def test_a_second_tab_that_is_behind_changes_nothing(browser: Any, tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(4))
    desk = drop.desk()
    with served(desk) as address, opened(browser, address) as tab:
        done(tab, 0, 4)
        second = tab.context.new_page()
        second.clock.install()  # its timers stand still: it does not look again by itself
        second.goto(tab.url)
        done(second, 0, 4)
        assert sample_id(tab) == sample_id(second) == 10
        press(tab, "1")
        done(tab, 1, 4)
        assert sample_id(second) == 10
        press(second, "2")
        second.get_by_text("nothing was changed, this is how it stands now").wait_for()
        done(second, 1, 4)
        assert sample_id(second) == 11
        assert desk.label_of(("b0-0000", 10)) == "cat"
        press(second, "2")
        done(second, 2, 4)
        done(tab, 2, 4)  # and the first looks again by itself
    desk.close()
    assert [line[:2] for line in drop.lines()] == [(10, "cat"), (11, "dog")]


def test_a_browser_without_the_token_and_another_site_get_nothing(browser: Any, tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(4))
    desk = drop.desk()
    with served(desk) as address, opened(browser, address) as tab, _other_site() as other:
        done(tab, 0, 4)
        with opened(browser, "about:blank") as stranger:
            for place in (tab.url, address):  # no token; one that was used
                reply = stranger.goto(place)
                assert reply.status == 403
                assert "this address was used" in stranger.content()
        # A page at another port of this host: of the same site, so that cookies go with it.
        foreign = tab.context.new_page()
        foreign.goto(other)
        said = json.dumps(
            {"chunk": "b0-0000", "sample_id": "10", "version": 0, "skip": False, "label": 1}
        )
        for mode, kind in (
            ("no-cors", "text/plain"),
            ("cors", "text/plain"),
            ("cors", "application/json"),
        ):
            foreign.evaluate(
                "async ([url, body, mode, kind]) => { try { await fetch(url, {method: 'POST', "
                "mode, credentials: 'include', headers: {'Content-Type': kind}, body}); } "
                "catch {} }",
                [f"{tab.url}answer", said, mode, kind],
            )
        read = foreign.evaluate(
            "async url => { try { const one = await fetch(url, {credentials: 'include'}); "
            "return await one.text(); } catch (error) { return 'refused'; } }",
            f"{tab.url}state",
        )
        assert read == "refused"
        tab.reload()
        done(tab, 0, 4)
        assert desk.last() is None
        press(tab, "s")
        done(tab, 1, 4)
    desk.close()
    assert drop.lines() == [(10, None, 0)]


@contextmanager
def _other_site() -> Iterator[str]:
    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>other</p>")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def test_texts_of_samples_are_never_markup(browser: Any, tmp_path: Path):
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    classes = ("<b>bold</b>", "plain")
    drop = Drop(tmp_path, Vocabulary("class", classes))
    table = texts(1).set_column(1, "text", pa.array([evil * 2]))
    drop.order(table.append_column("<i>name</i>", pa.array([evil[:40]])))
    desk = drop.desk()
    with served(desk) as address, opened(browser, address) as tab:
        done(tab, 0, 1)
        assert tab.locator("#row .text").text_content() == evil * 2
        assert tab.locator("#row td").text_content() == evil[:40]
        assert tab.locator("#row th").text_content() == "<i>name</i>"
        assert tab.locator("#row img, #row i, #choices b, #row script").count() == 0
        assert tab.title() == "rayal label"
        press(tab, "1")
        tab.get_by_text("last: <b>bold</b>").wait_for()
    desk.close()


def test_many_labels_numbers_and_many_classes(browser: Any, tmp_path: Path):
    drop = Drop(tmp_path / "m", Vocabulary("multilabel", ("art", "law", "war")))
    drop.order(texts(3))
    desk = drop.desk()
    with served(desk) as address, opened(browser, address) as tab:
        done(tab, 0, 3)
        press(tab, "3", "1", "2", "2", "Enter")
        done(tab, 1, 3)
        press(tab, "Enter")
        done(tab, 2, 3)
        tab.get_by_role("button", name="law").click()
        press(tab, "Enter")
        done(tab, 3, 3)
    desk.close()
    assert [line[1] for line in drop.lines()] == [["art", "war"], [], ["law"]]

    drop = Drop(tmp_path / "n", Vocabulary("number"))
    drop.order(texts(3))
    desk = drop.desk()
    with served(desk) as address, opened(browser, address) as tab:
        done(tab, 0, 3)
        press(tab, "-", "1", ".", "5", "Enter")
        done(tab, 1, 3)
        press(tab, "7", "u")
        done(tab, 0, 3)
        press(tab, "2", "Enter")
        done(tab, 1, 3)
        press(tab, "1", "-", "Enter")
        tab.get_by_text("'1-' is not a finite number").wait_for()
        press(tab, "s")
        done(tab, 2, 3)
    desk.close()
    assert [line[1] for line in drop.lines()] == [2.0, None]

    drop = Drop(tmp_path / "c", Vocabulary("class", tuple(f"kind {i:03d}" for i in range(200))))
    drop.order(texts(3))
    desk = drop.desk()
    with served(desk) as address, opened(browser, address) as tab:
        done(tab, 0, 3)
        tab.get_by_text("and 160 more: type to find them").wait_for()
        tab.keyboard.type("d 17")
        assert tab.locator("#choices button").count() == 10
        tab.keyboard.type("3")
        press(tab, "Enter")
        done(tab, 1, 3)
        press(tab, "Delete")
        done(tab, 2, 3)
        press(tab, "Control+z")
        done(tab, 1, 3)
        tab.keyboard.type("kind 001")
        press(tab, "Enter")
        done(tab, 2, 3)
    desk.close()
    assert [line[1] for line in drop.lines()] == ["kind 173", "kind 001"]


def test_what_is_ordered_later_appears_by_itself(browser: Any, tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(1))
    desk = drop.desk()
    with served(desk) as address, opened(browser, address) as tab:
        done(tab, 0, 1)
        press(tab, "1")
        tab.get_by_text("all 1 rows are answered").wait_for()
        drop.order(texts(2, start=50), "b1")
        done(tab, 1, 3)
        assert sample_id(tab) == 50
        press(tab, "2")
        done(tab, 2, 3)
    desk.close()
    assert drop.lines("b1-0000") == [(50, "dog", 0)]


def test_a_desk_that_is_gone_is_said(browser: Any, tmp_path: Path):
    drop = Drop(tmp_path)
    drop.order(texts(2))
    desk = drop.desk()
    with opened(browser, "about:blank") as tab:
        with served(desk) as address:
            tab.goto(address)
            done(tab, 0, 2)
        press(tab, "1")
        tab.get_by_text("the desk does not answer; what you labelled is kept").wait_for()
    assert desk.last() is None
    desk.close()
