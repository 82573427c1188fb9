"""The contract of an adapter, kept and broken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doors import Doors

from rayal.labelers.file_drop import FileDrop
from rayal.labelers.rest import Rest
from rayal.types import Vocabulary
from rayal.vendorkit.check import check, rows_of
from rayal.vendorkit.faults import Faults
from rayal.vendorkit.scenario import CALLS, FIELDS, STATES
from rayal.vendorkit.server import Desk, served
from rayal.vendorkit.vendor import Vendor

pytest.importorskip("httpx", reason="adapters over HTTP need the extra 'vendors'")

CLASSES = ("ant", "bee")
WORDS = Vocabulary("class", CLASSES)
FAMILIES = ("key", "tag", "path", "none")


def _rest(url: str, family: str, **words: Any) -> Rest:
    settings: dict[str, Any] = {
        "calls": CALLS, "fields": FIELDS, "states": STATES, "family": family, "columns": ["text"],
        "rows_per_chunk": 3, "in_doubt_s": 0.05, **words,
    }  # fmt: skip
    made = Rest(url, **settings)
    made.client._sleep = lambda seconds: None
    return made


@pytest.fixture
def vendors() -> Iterator[dict[str, tuple[Vendor, str]]]:
    from contextlib import ExitStack

    with ExitStack() as stack:
        made = {}
        for family in FAMILIES:
            vendor = Vendor(family, CLASSES, 3, Faults(shuffled=0.2, edited=0.3), delay_s=0.0)
            made[family] = vendor, stack.enter_context(served(Desk(vendor)))
        yield made


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_that_keeps_the_contract(vendors: Any, family: str) -> None:
    vendor, url = vendors[family]
    found = list(check(_rest(url, family), WORDS, rows_of(None, ["text"])))
    assert [one for one in found if one.is_kept is False] == []
    kept = {one.name for one in found if one.is_kept}
    assert "an order is placed, whatever dies or is cut off" in kept
    assert "fetching comes to an end, and again gives the same" in kept
    assert ("the vendor has each row once" in kept) == (family in ("key", "tag"))
    assert len(vendor.feed) >= 7
    assert vendor.items == []  # cancelled


class Blind(Rest):
    """Never finds what it has sent."""

    def lookup(self, key: str) -> Any:
        return None

    def held(self, key: str) -> Any:
        return {int(one): ["x"] for one in range(7)}


class Fickle(Rest):
    """Tells another label each time."""

    turn = 0

    def fetch(self, order: Any, cursor: str) -> Any:
        from dataclasses import replace

        events, after = super().fetch(order, cursor)
        self.turn += 1
        return [replace(one, annotator=str(self.turn)) for one in events], after


class Endless(Rest):
    """Has a cursor that never stands still."""

    def fetch(self, order: Any, cursor: str) -> Any:
        return [], cursor + "x"


class Loud(FileDrop):
    """Has keys that vendors refuse."""

    def plan(self, job_id: str, rows: Any) -> Any:
        from dataclasses import replace

        return tuple(replace(one, key=one.key.upper()) for one in super().plan(job_id, rows))


def _broken(labeler: Any) -> list[str]:
    found = check(labeler, WORDS, rows_of(None, ["text"]))
    return [f"{one.name}: {one.why}" for one in found if one.is_kept is False]


def test_adapters_that_break_it(vendors: Any, tmp_path: Path) -> None:
    words = {"calls": CALLS, "fields": FIELDS, "states": STATES, "columns": ["text"]}
    words |= {"in_doubt_s": 0.0, "rows_per_chunk": 3}
    vendor, url = vendors["tag"]
    said = _broken(Blind(url, family="tag", **words))
    assert said[0].startswith("the vendor has each chunk, and says so: it has not got b"), said
    assert said[1].startswith("the vendor has each row once"), said
    assert len(vendor.feed) > 7  # it was sent again and again
    assert any(
        "one revision" in one or "another content" in one
        for one in _broken(Fickle(vendors["key"][1], family="key", **words))
    )
    said = _broken(Endless(vendors["key"][1], family="key", **words))[0]
    assert "the cursor moves on after 1000 calls" in said
    boxes = [str(tmp_path / name) for name in ("out", "in")]
    said = _broken(Loud(*boxes, columns=["text"]))[0]
    assert "is none: [a-z0-9-], at most 63 characters" in said


def test_the_command(doors: Doors, vendors: Any) -> None:
    labeler = {
        "_target_": "rayal.labelers.rest.Rest", "url": vendors["tag"][1], "family": "tag",
        "calls": CALLS, "fields": FIELDS, "states": STATES, "columns": ["text"],
        "in_doubt_s": 0.05, "rows_per_chunk": 3, "timeout_s": 5.0,
    }  # fmt: skip
    told = {"labeler": labeler, "vocabulary": {"kind": "class", "classes": list(CLASSES)}}
    Path("vendor.yaml").write_text(yaml.safe_dump(told))
    doors("vendor", "check", "vendor.yaml").refused("an order of 7 rows", "Say --yes to go on")
    said = doors("vendor", "check", "vendor.yaml", "--yes").done().out.splitlines()
    assert [line.split()[0] for line in said] == ["kept"] * 5 + ["not", "kept"]
    labeler["_target_"] = "test_check.Blind"
    doors.monkeypatch.syspath_prepend(str(Path(__file__).parent))
    Path("vendor.yaml").write_text(yaml.safe_dump(told))
    said = doors("vendor", "check", "vendor.yaml", "--yes")
    said.refused("2 lines of the contract are broken")
    assert "BROKEN     the vendor has each chunk" in said.out
    doors("vendor", "check", "nothing.yaml", "--yes").refused("cannot be read")
    Path("vendor.yaml").write_text("labeler: 3")
    doors("vendor", "check", "vendor.yaml").refused("has no labeler or no vocabulary")
    Path("rows.jsonl").write_text('{"text": "a"}\n{"text": "b"\n')
    Path("vendor.yaml").write_text(yaml.safe_dump({**told, "rows": "rows.jsonl"}))
    doors("vendor", "check", "vendor.yaml").refused("is no JSONL file")
