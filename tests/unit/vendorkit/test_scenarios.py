"""Orders beside a vendor with faults, and a driver that dies: each row is ordered once."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from pathlib import Path

import pytest

from rayal import ordering
from rayal.vendorkit import scenario
from rayal.vendorkit.faults import Faults
from rayal.vendorkit.killed import play_killed
from rayal.vendorkit.scenario import Scene, play

pytest.importorskip("httpx", reason="adapters over HTTP need httpx (the extra 'vendors')")


@pytest.mark.parametrize("seed", range(12))
def test_each_row_is_ordered_once_and_every_answer_kept(seed: int, tmp_path: Path) -> None:
    scene = Scene(seed, tmp_path, share=1.0 if seed < 4 else 0.4)
    assert play(scene) == []
    assert scene.reaper.num_kills > 20
    assert len(scene.vendor.feed) >= len(scene.ids)


@pytest.mark.parametrize("seed", [100, 101, 102, 103])
def test_a_vendor_without_faults(seed: int, tmp_path: Path) -> None:
    scene = Scene(seed, tmp_path, share=0.0, faults=Faults())
    assert play(scene) == []
    assert scene.reaper.num_kills == 0


def _problems(tmp_path: Path, family: str, faults: Faults, seeds: range) -> list[str]:
    found = []
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        found += play(Scene(seed, folder, family, share=0.4, faults=faults))
    return found


def test_a_driver_that_sends_again_without_asking_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "next_move", lambda entries, can: ("send", 0.0))
    monkeypatch.setattr(ordering.Orders, "_audited", lambda self, t, c, rows, ack, why: ack)
    monkeypatch.setattr(ordering.Orders, "look_after", lambda self, t, order: 0)
    found = _problems(tmp_path, "tag", Faults(cut_after=0.3), range(2))
    assert any("is at the vendor 2 times" in one for one in found)


def test_a_driver_that_asks_too_soon_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering.Orders, "_wait", lambda self, until, key: None)
    monkeypatch.setattr(ordering.Orders, "_audited", lambda self, t, c, rows, ack, why: ack)
    monkeypatch.setattr(ordering.Orders, "look_after", lambda self, t, order: 0)
    found = _problems(tmp_path, "tag", Faults(cut_late=0.3), range(3))
    assert any("is at the vendor 2 times" in one for one in found)


def test_what_was_sent_again_too_soon_is_taken_back_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering.Orders, "_wait", lambda self, until, key: None)
    monkeypatch.setattr(ordering.Orders, "_audited", lambda self, t, c, rows, ack, why: ack)
    assert _problems(tmp_path, "tag", Faults(cut_after=0.3), range(3)) == []


def test_an_audit_takes_back_what_is_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "next_move", lambda entries, can: ("send", 0.0))
    scene = Scene(5, tmp_path, "tag", share=0.0, faults=Faults(cut_after=0.3))
    assert play(scene) == []
    assert scene.vendor._count > len(scene.ids)  # it had some twice


def test_a_vendor_that_cannot_be_asked_is_never_sent_twice_without_a_word(tmp_path: Path) -> None:
    scene = Scene(3, tmp_path, "none", share=0.2, faults=Faults(cut_after=0.2, cut_before=0.2))
    assert play(scene) == []
    with scenario.driver(scene, scene.labeler("http://127.0.0.1:9")) as orders:
        what = [entry.what for entry in orders.ledger.logged()]
    assert "assume-sent" in what
    assert "assume-lost" in what


def test_a_lost_answer_or_a_wrong_bill_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ordering.Orders._sorted

    def forgetful(self: ordering.Orders, t: int, events: list[object]) -> object:
        fit, odd = kept(self, t, events)  # type: ignore[arg-type]
        return fit[1:], odd

    monkeypatch.setattr(ordering.Orders, "_sorted", forgetful)
    found = _problems(tmp_path, "key", Faults(), range(1))
    assert any("is missing" in one for one in found)
    assert any("the vendor's bill" in one for one in found)


@pytest.mark.timeout(150)
def test_a_driver_that_is_killed(tmp_path: Path) -> None:
    problems, num_kills = play_killed(Scene(1, tmp_path, is_real=True))
    assert problems == []
    assert num_kills > 0


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_twenty_drivers_that_are_killed(tmp_path: Path) -> None:
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        problems, _ = play_killed(Scene(seed, folder, is_real=True))
        assert problems == [], seed


@pytest.mark.slow
@pytest.mark.timeout(2_400)
def test_a_thousand_scenarios() -> None:
    parts = [range(start, 1_000, 2) for start in range(2)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        told = list(pool.map(_swept, parts))
    assert [line for lines, _ in told for line in lines] == []
    assert sum(num_kills for _, num_kills in told) > 20_000


def _swept(seeds: range) -> tuple[list[str], int]:
    lines: list[str] = []
    _, num_kills = scenario.sweep(seeds, lines.append)
    return lines, num_kills
