"""What can go wrong with a vendor, as shares of what it is asked and of what it answers."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True)
class Faults:
    """Shares from 0 to 1; all 0: a vendor without a fault.

    Of calls that change something: `cut_after` (taken, and no reply), `cut_before` (not taken, and
    no reply), `cut_late` (no reply, and taken some time later), `silent` (taken, and the reply
    never ends), `busy` (429), `broken` (500, not taken), `broken_after` (500, and taken),
    `half` (only some rows are taken, and no reply; only vendors that can be asked by tag do this).
    Of calls that only ask: `cut_asked`, `busy`, `broken`.
    Of answers: `late`, `twice` (delivered again), `shuffled` (pages in any order, a correction
    before what it corrects), `recalled` (withdrawn, its price given back, answered anew), `edited`,
    `invented` (a label outside the vocabulary), `mended` (of the invented: corrected later),
    `refused`, `extra` (one annotator more than ordered), `dear` (three times the price),
    `stray` (of a sample that nobody ordered).
    """

    cut_after: float = 0.0
    cut_before: float = 0.0
    cut_late: float = 0.0
    silent: float = 0.0
    busy: float = 0.0
    broken: float = 0.0
    broken_after: float = 0.0
    half: float = 0.0
    cut_asked: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    shuffled: float = 0.0
    recalled: float = 0.0
    edited: float = 0.0
    invented: float = 0.0
    mended: float = 0.5
    refused: float = 0.0
    extra: float = 0.0
    dear: float = 0.0
    stray: float = 0.0

    @classmethod
    def drawn(cls, rng: np.random.Generator, most: float = 0.3) -> Faults:
        """Gives faults of which about half are there, each with a share up to `most`."""
        names = [one.name for one in fields(cls) if one.name != "mended"]
        shares = {n: float(rng.uniform(0, most)) for n in names if rng.random() < 0.5}
        return replace(cls(), **shares)


CALLS = ("cut_after", "cut_before", "cut_late", "silent", "busy", "broken", "broken_after", "half")
QUESTIONS = ("cut_asked", "busy", "broken")


def strike(faults: Faults, names: tuple[str, ...], rng: np.random.Generator) -> str | None:
    """Gives the fault that a call meets, or None."""
    draw = rng.random()
    for name in names:
        draw -= getattr(faults, name)
        if draw < 0:
            return name
    return None
