"""What of a plan cannot be: each with its arithmetic, and what comes nearest and can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rayal.columns import is_vector, vector_shape
from rayal.plan.asked import Asked
from rayal.plan.measured import Measured
from rayal.plan.phases import Plan
from rayal.plan.show import size
from rayal.plan.survive import survivors
from rayal.plan.watch import DRIVER
from rayal.pool import Pool
from rayal.types import Vocabulary

_RANDOM = "{_target_:rayal.scorers.random.Random}"
_GIB = 2**30


@dataclass(frozen=True)
class Proposal:
    """Words to add to the command, and what they give."""

    words: str
    gives: str


def misfits(plan: Plan, asked: Asked, measured: Measured, machine: Any) -> list[str]:
    """Gives what cannot be, a sentence with numbers each; none: the run fits."""
    found = []
    if plan.disk_bytes > machine.disk_bytes:
        text = slices_text(asked, measured)
        (_, slices), *others = plan.disk.items()
        if slices <= machine.disk_bytes:  # it is not they alone
            more = [f"{size(num)} of {name}" for name, num in others if num >= 500]
            text = f"{' + '.join([text, *more])} = {size(plan.disk_bytes)}"
        found.append(
            f"{text} on 1 node with {machine.memory_bytes / _GIB:.1f} GiB "
            f"memory, and {size(machine.disk_bytes)} are free on the disk of {machine.disk}"
        )
    here = [one for one in plan.processes if one.role == DRIVER or not asked.on_cluster]
    needed_bytes = sum(one.number * one.peak_bytes for one in here)
    if needed_bytes > machine.memory_bytes:
        parts = " + ".join(
            f"{one.number} x {one.role} {one.peak_bytes / _GIB:.2f} GiB" for one in here
        )
        found.append(
            f"{parts} = {needed_bytes / _GIB:.1f} GiB of memory, and this machine gives "
            f"{machine.memory_bytes / _GIB:.1f} GiB"
        )
    if plan.num_rounds <= asked.first_round and plan.stops:
        found.append(f"no round can begin: {plan.stops}")
    return found


def slices_text(asked: Asked, measured: Measured) -> str:
    """Gives the arithmetic of what a pass leaves on disk."""
    at_once = max(1, asked.num_workers) * asked.in_flight
    left = survivors(asked.scored_rows, asked.keep, at_once)
    row = 16 + sum(one for _, one in measured.widths.values())
    widths = [f"{n:,} x {b // max(1, n)}" for n, b in measured.widths.values()]
    rows = f"{left:,.0f} rows" if asked.keep is None else f"{left:,.0f} survivors of {asked.keep:,}"
    return f"{rows} x ({' + '.join([*widths, '16'])} bytes) = {size(left * row)} of slices"


def proposals(
    asked: Asked,
    measured: Measured,
    pool: Pool,
    vocabulary: Vocabulary,
    strategy: Mapping[str, Any],
    fits: Callable[[str], bool],
) -> Iterator[Proposal]:
    """Gives what comes nearest, each tried by `fits`, which plans with the words added. `strategy`
    is the node of the configuration."""
    sign = "" if "num_candidates" in strategy else "+"
    scorer = "" if strategy.get("scorer") else f"'+strategy.scorer={_RANDOM}' "
    most = asked.keep or asked.num_rows
    words = f"{scorer}{sign}strategy.num_candidates="
    if found := largest(asked.budget, most, lambda m: fits(f"{words}{m}")):
        what = "best-scored rows" if not scorer else "rows, drawn uniformly,"
        yield Proposal(f"{words}{found}", f"the {found:,} {what} are candidates")
    selector = strategy.get("selector")
    if isinstance(selector, Mapping) and "feature" in selector:
        for name in small_vectors(pool):
            words = f"strategy.selector.feature={name}"
            if name != selector["feature"] and fits(words):
                yield Proposal(words, f"distances of the pool's int8 column {name}")
    if (
        not strategy.get("scorer")
        and vocabulary.kind != "number"
        and fits("strategy=cluster_margin")
    ):
        yield Proposal("strategy=cluster_margin", "margins choose candidates, clusters spread them")
    if asked.kept_bytes and fits("rescoring=null"):
        yield Proposal("rescoring=null", "nothing is kept of the rows, every pass scores all")
    if asked.num_workers > 1:
        fewer = largest(1, asked.num_workers, lambda n: fits(f"engine.num_workers={n}"), exact=True)
        if fewer and fewer < asked.num_workers:
            yield Proposal(f"engine.num_workers={fewer}", "fewer processes at a time")
    if asked.price_minor:
        fewer = largest(1, asked.budget, lambda n: fits(f"budget={n}"), exact=True)
        if fewer and fewer < asked.budget:
            yield Proposal(f"budget={fewer}", f"{fewer:,} labels a round")


def largest(least: int, most: int, fits: Callable[[int], bool], exact: bool = False) -> int:
    """Gives the largest number from `least` to `most` that fits, 0 where none does; what fits is
    supposed to fit with less. Rounded down to two digits unless `exact`: nobody needs the rest."""
    if least > most or not fits(least):
        return 0
    if fits(most):
        return most
    low, high = least, most  # low fits, high does not
    while high - low > (1 if exact else max(1, low // 200)):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    digits = 0 if exact else max(0, len(str(low)) - 2)
    return max(least, low // 10**digits * 10**digits)


def small_vectors(pool: Pool) -> list[str]:
    """Gives the pool's columns of int8 vectors."""
    return [
        str(field.name)
        for field in pool.schema
        if is_vector(field) and vector_shape(field)[0].itemsize == 1
    ]


def widths_in(
    measured: Measured, pool: Pool, vocabulary: Vocabulary, features: tuple[str, ...]
) -> dict[str, tuple[int, int]] | None:
    """Gives numbers and bytes a row of other features than the trial's; None: nothing says them."""
    found: dict[str, tuple[int, int]] = {}
    for name in features:
        if name in measured.widths:
            found[name] = measured.widths[name]
        elif name == "probs":
            found[name] = (vocabulary.num_outputs, 4 * vocabulary.num_outputs)
        elif name in pool.schema.names and is_vector(pool.schema.field(name)):
            dtype, width = vector_shape(pool.schema.field(name))
            found[name] = (width, width * dtype.itemsize)
        else:
            return None
    return found
