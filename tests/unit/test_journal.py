"""The journal of a selection: what is believed of a file that was cut short or damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from slices import cut, none_labelled

from rayal.journal import Journal
from rayal.keys import Keys
from rayal.selectors.kmeans_pp import KMeansPP
from rayal.selectors.lcmd import LCMD

ENTRIES = [{"picks": [[10 * j + k, 0.5] for k in range(3)]} for j in range(6)]
KEYS = Keys(3, 0)


def _written(path: Path) -> list[bytes]:
    journal = Journal(path)
    assert journal.begin("a selection", 3) == []
    for entry in ENTRIES:
        journal.add(**entry)
    return path.read_bytes().splitlines(keepends=True)


def _swapped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


DAMAGE = {
    "cut short": (lambda lines: [*lines[:-1], lines[-1][:-5]], 5),
    "without its end": (lambda lines: [*lines[:-1], lines[-1][:-1]], 5),
    "NULs behind": (lambda lines: [*lines, b"\0" * 400], 6),
    "a line of NULs": (lambda lines: [*lines[:4], b"\0" * 99 + b"\n", *lines[5:]], 3),
    "no text": (lambda lines: [*lines[:2], b"\xff\xfe\x80\n", *lines[2:]], 1),
    "an empty line": (lambda lines: [*lines[:2], b"\n", *lines[2:]], 1),
    "a digit": (lambda lines: [*lines[:2], lines[2].replace(b"0.5", b"0.7"), *lines[3:]], 1),
    "twice": (lambda lines: [*lines[:4], lines[3], *lines[4:]], 3),
    "left out": (lambda lines: [*lines[:3], *lines[4:]], 2),
    "swapped": (_swapped, 2),
    "of the old form": (lambda lines: [lines[0], b'{"picks": [[1, 0.5]]}\n'], 0),
    "head alone": (lambda lines: [lines[0][:-4]], 0),
    "nothing": (lambda lines: [], 0),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_fits_is_believed_and_the_rest_is_made_again(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "picks.jsonl"
    lines = _written(path)
    spoil, num_left = DAMAGE[damage]
    path.write_bytes(b"".join(spoil(lines)))
    journal = Journal(path)
    assert journal.begin("a selection", 3) == ENTRIES[:num_left]
    assert path.read_bytes() == b"".join(lines[: num_left + 1])
    for entry in ENTRIES[num_left:]:
        journal.add(**entry)
    assert path.read_bytes() == b"".join(lines)
    assert Journal(path).begin("another", 3) == []


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "picks.jsonl"
    one, other = Journal(path), Journal(path)
    for journal in (one, other):
        journal.begin("a selection")
    for entry in ENTRIES:
        one.add(**entry)
        other.add(picks=[[100 + entry["picks"][0][0], 0.5]])
    assert Journal(path).begin("a selection") == ENTRIES[:1]


def test_a_row_that_is_picked_again_ends_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "picks.jsonl")
    journal.begin("a selection")
    journal.add(picks=[[1, 0.5]], counters={"drawn": 3})
    journal.add(refresh=4)
    journal.add(picks=[[2, 0.5], [1, 0.5]])
    again = Journal(journal.path).begin("a selection")
    assert again == [{"picks": [[1, 0.5]], "counters": {"drawn": 3}}, {"refresh": 4}]


@pytest.mark.parametrize("selector", [LCMD(), KMeansPP()], ids=repr)
@pytest.mark.parametrize("damage", ["cut short", "a line of NULs", "no text", "twice", "left out"])
def test_a_damaged_journal_leads_to_the_same_batch(selector, damage: str, tmp_path: Path) -> None:
    embeds = np.random.default_rng(0).normal(size=(900, 8)).astype(np.float32)
    path = tmp_path / "picks.jsonl"

    def run():
        rows = cut(np.arange(900), None, {"embeds": embeds}, 3)
        rows.journal = Journal(path)
        return selector.select(rows, none_labelled(embeds=embeds), 60, KEYS)

    first = run()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(DAMAGE[damage][0](lines)))
    again = run()
    assert again.ids.tolist() == first.ids.tolist()
    assert again.reasons == first.reasons
    assert path.read_bytes() == b"".join(lines)
