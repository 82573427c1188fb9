"""How much memory the processes of a run will have at most, from what a trial's had."""

from __future__ import annotations

from collections.abc import Iterator

from rayal.plan.asked import Asked
from rayal.plan.measured import Measured
from rayal.plan.phases import Process
from rayal.plan.survive import most_held
from rayal.plan.watch import DRIVER, RANK, SCORER, Memory

_COPIES = 2.0  # of a shard's survivors: the parts, and the whole that is sorted and written
_PICK_BYTES = 600  # of a pick on the driver: its reason is text


def processes_of(
    asked: Asked, measured: Measured, here: Memory, held_bytes: float
) -> Iterator[Process]:
    """Gives the processes of a run by kind, largest stage each.

    `here` is what this process, which has built the same parts by the same command, has in memory:
    a driver begins with as much, and takes on top what the trial's took on top of its own start.
    `held_bytes` is what the selection keeps in memory beyond the trial's, in all slices together.
    """
    numbers = {DRIVER: 1, SCORER: asked.num_workers, RANK: asked.num_ranks}
    mapped_by = sum(numbers.values())  # processes that share the libraries' pages
    shift = Memory(max(0, here.own - measured.base.own), max(0, here.files - measured.base.files))
    for role, number in numbers.items():
        if not number:
            continue
        best, when = 0.0, ""
        for stage, peaks in measured.peaks.items():
            found = peaks.get(role)
            if found is None and role == SCORER and measured.num_workers < number:
                found = peaks.get(DRIVER)  # the trial's own process scored
            if found is None:
                continue
            if role == DRIVER:
                found = Memory(found.own + shift.own, found.files + shift.files)
            size = _share(found, measured.base.files + shift.files, mapped_by)
            size += _growth(asked, measured, role, stage, held_bytes)
            if size > best:
                best, when = size, stage
        gpu_bytes = measured.gpu_bytes if number == 1 or role == SCORER else 0
        yield Process(role, number, best, when, gpu_bytes)


def _share(found: Memory, libraries: int, mapped_by: int) -> float:
    """Gives a process's part: its own pages, its part of the libraries, and other files (shards and
    slices that it alone maps)."""
    common = min(found.files, libraries)
    return found.own + common / mapped_by + (found.files - common)


def _growth(asked: Asked, measured: Measured, role: str, stage: str, held_bytes: float) -> float:
    """Gives what a whole run has more of than the trial had."""
    row_bytes = 16 + sum(size for _, size in measured.widths.values())
    scores = role == (SCORER if asked.num_workers else DRIVER)
    more = 0.0
    if scores and stage in ("score", "select"):
        held = most_held(asked.scored_rows, asked.keep)
        more += max(0, held - measured.most_kept) * row_bytes * _COPIES
    if scores and stage == "select":
        more += held_bytes / max(1, asked.num_workers)
    if role == DRIVER:
        tried = max(one.budget for one in measured.selected)
        more += max(0, asked.budget - tried) * _PICK_BYTES
        more += asked.num_shards * measured.report_bytes
        if stage == "train":
            last = asked.num_labels(asked.num_rounds - 1)
            more += max(0, last - measured.num_labels) * 2 * measured.labels.snapshot_bytes
    return more
