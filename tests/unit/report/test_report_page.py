"""The page as a reader's browser gets it."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pytest

from rayal.report import PickView, RoundView, RunView, SpendView, render

_VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; a tag that is not closed in order is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "style" not in self.open:
            self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _pick(number: int, reason: str) -> PickView:
    return PickView(number, 0.99, reason, "fi", f"word {number}")


def _view(**changes: object) -> RunView:
    fields: dict[str, object] = {
        "title": "Language identification",
        "run_name": "run-7",
        "state": "done",
        "strategy": "margin",
        "num_pool_rows": 6_644_757,
        "metric": "accuracy",
        "higher_is_better": True,
        "config": "budget: 100\nlabeler:\n  api_key: abracadabra\n",
        "rounds": (
            RoundView(0, 100, 0.5, {"train": 4.0}, {}, {"fi": 1.0}, (_pick(3, "cold start"),)),
            RoundView(
                1,
                200,
                0.625,
                {"score": 21.0, "train": 5.0},
                {"fi": 0.25, "sv": 0.75},
                {"sv": 1.0},
                (_pick(44, "margin 0.01 between fi and sv"),),
            ),
        ),
        "spend": SpendView(200, 1_234, "EUR"),
        "curves": {"random": ((100, 0.5), (200, 0.6))},
    }
    return RunView(**(fields | changes))  # type: ignore[arg-type]


def test_everything_that_was_given_is_on_the_page() -> None:
    page = Page(render(_view()))
    for expected in (
        "Language identification",
        "done",
        "run-7",
        "6,644,757 rows",
        "12.34 EUR",
        "for 200 labels",
        "from 0.5000 in round 0",
        "margin is 0.0250 better than random at 200 labels.",
        "+0.1250",
        "21.0s",
        "word 44",
        "margin 0.01 between fi and sv",
        "cold start",
        "75.0% / 100.0%",
        "sv: 75.0% of pool predictions",
        "budget: 100",
    ):
        assert expected in page.text, expected
    assert [len(line["points"].split()) for line in page.all("polyline") if line["points"]] == [
        2,
        2,
    ]


def test_the_page_needs_nothing_but_itself() -> None:
    html = render(_view())
    page = Page(html)
    assert {"script", "link", "img", "iframe", "object", "a"}.isdisjoint(
        name for name, _ in page.tags
    )
    attributes = {name for _, found in page.tags for name in found}
    assert attributes.isdisjoint({"src", "href", "xlink:href", "onclick", "onload", "style"})
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_the_page_is_a_function_of_the_view() -> None:
    assert render(_view()) == render(_view())


def test_what_comes_from_data_is_text_and_never_markup() -> None:
    evil = "</title><script>alert('x')</script>\"><img src=x onerror=y>"
    turn = RoundView(
        0, 1, 0.5, {evil: 1.0}, {evil: 1.0}, {evil: 1.0}, (PickView(1, 0.5, evil, evil, evil),)
    )
    view = _view(
        title=evil,
        run_name=evil,
        state=evil,
        strategy=evil,
        metric=evil,
        config=evil,
        rounds=(turn,),
        curves={evil: ((1, 0.5),)},
        waiting_for=evil,
        ended_because=evil,
    )
    page = Page(render(view))
    assert {"script", "img"}.isdisjoint(name for name, _ in page.tags)
    assert evil in page.text


def test_no_secret_reaches_the_page() -> None:
    url = "https://me:abracadabra@vendor.example/x"
    turn = RoundView(0, 1, picks=(PickView(1, 0.5, url, url, "the word is openSesame"),))
    view = _view(
        title=f"run at {url}",
        waiting_for=url,
        rounds=(turn,),
        config=f"labeler:\n  url: {url}\n  note: openSesame\n  password: abracadabra\n",
    )
    html = render(view, secrets=["openSesame"])
    assert "abracadabra" not in html
    assert "openSesame" not in html
    assert "me:***@vendor.example" in html


def test_a_run_without_rounds_has_a_page() -> None:
    page = Page(render(_view(rounds=(), spend=None, curves={}, state="running", num_pool_rows=0)))
    assert "No round is finished yet." in page.text
    assert "No round has been tested yet." in page.text
    assert page.all("polyline") == []


def test_rounds_without_a_metric_show_a_dash() -> None:
    rounds = (RoundView(0, 10), RoundView(1, 20, math.nan), RoundView(2, 30, None))
    page = Page(render(_view(rounds=rounds, curves={})))
    assert page.texts.count("–") == 3
    assert "nan" not in page.texts


@pytest.mark.parametrize(
    ("higher", "first", "second"), [(True, "better", "worse"), (False, "worse", "better")]
)
def test_direction_decides_what_is_better(higher: bool, first: str, second: str) -> None:
    rounds = tuple(RoundView(t, t + 1, value) for t, value in enumerate((2.0, 3.0, 1.0, 1.0)))
    page = Page(
        render(_view(rounds=rounds, higher_is_better=higher, curves={"random": ((4, 2.0),)}))
    )
    classes = [
        (found["class"] or "").split()[-1]
        for found in page.all("td")
        if "tter" in (found["class"] or "") or "worse" in (found["class"] or "")
    ]
    assert classes == [first, second]
    assert page.text.count(f"1.0000 {second} than random at 4 labels") == 1
    best = [found for found in page.all("td") if found["class"] == "num best"]
    assert len(best) == (1 if higher else 2)


def test_a_long_run_shows_details_of_the_last_twelve_rounds() -> None:
    rounds = tuple(RoundView(t, t + 1, 0.5, picks=(_pick(t, f"reason {t}."),)) for t in range(30))
    page = Page(render(_view(rounds=rounds, curves={})))
    assert "reason 29." in page.text
    assert "reason 18." in page.text
    assert "reason 17." not in page.text
    assert "Details of the first 18 rounds are left out" in page.text
    assert len(page.all("tr")) == 31 + 12 * 2  # the table of rounds is whole


def test_a_long_preview_is_clipped() -> None:
    rounds = (RoundView(0, 1, picks=(PickView(1, 0.5, "", "", "ab" * 5_000),)),)
    html = render(_view(rounds=rounds))
    assert "ab" * 119 in html
    assert "ab" * 121 not in html
