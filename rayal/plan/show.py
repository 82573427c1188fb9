"""A plan as a person reads it: a table, or its short form."""

from __future__ import annotations

from collections.abc import Iterator

from rayal.currency import format_money
from rayal.plan.asked import Asked
from rayal.plan.phases import NAMES, Phase, Plan
from rayal.progress import format_count, format_seconds


def table(plan: Plan, asked: Asked) -> str:
    """Gives the whole of it, a line a phase and a line a process."""
    return "\n".join(_lines(plan, asked))


def short(plan: Plan, asked: Asked) -> list[str]:
    """Gives two or three lines: time and spend, the largest phases, memory and disk."""
    sums = sorted(
        ((sum(one.wall_s for one in plan.of(name)), name) for name in NAMES), reverse=True
    )
    largest = ", ".join(f"{name} {format_seconds(wall_s)}" for wall_s, name in sums[:3])
    memory = ", ".join(_process(one.role, one.number, one.peak_bytes) for one in plan.processes)
    num_rounds = plan.num_rounds - asked.first_round
    lines = [
        f"plan: {num_rounds} round{'' if num_rounds == 1 else 's'} in about "
        f"{format_seconds(plan.wall_s)} ({largest}){_spend(plan)}",
        f"plan: memory {memory}; disk {size(plan.disk_bytes)}",
    ]
    if plan.stops:
        lines.append(f"plan: it will end after round {plan.num_rounds - 1}: {plan.stops}")
    return lines


def size(num_bytes: float) -> str:
    """Gives bytes as a person reads them: 16.0 GB, 812 MB, 4 kB."""
    for scale, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.{1 if num_bytes < 100 * scale else 0}f} {suffix}"
    return f"{num_bytes / 1e3:,.0f} kB"


def _lines(plan: Plan, asked: Asked) -> Iterator[str]:
    keep = "all" if asked.keep is None else f"M = {asked.keep:,}"
    scorer = "" if asked.scorer is None else f"{asked.scorer} + "
    workers = f"{asked.num_workers} workers" if asked.num_workers else "this process"
    yield (
        f"{asked.num_rows:,} rows in {asked.num_shards:,} shards, {asked.num_test_rows:,} test "
        f"rows; {scorer}{asked.selector}, {keep}, {asked.budget:,} a round; {workers}"
    )
    yield ""
    last = plan.num_rounds - 1
    yield (
        f"{'phase':8} {'first':>9} {f'round {last}':>9} {'all':>9} {'CPU-h':>8} {'GPU-h':>8} "
        f"{'read':>9} {'written':>9} {'sent':>9}"
    )
    for name in NAMES:
        phases = plan.of(name)
        if phases:
            yield _row(name, phases)
    yield _row("sum", plan.phases, is_sum=True)
    if plan.spread:
        yield f"rows/s of a scoring pass differed by {plan.spread:.0%} between parts of the pool"
    yield ""
    for process in plan.processes:
        gpu = f", {size(process.gpu_bytes)} on a GPU" if process.gpu_bytes else ""
        yield (
            f"memory   {_process(process.role, process.number, process.peak_bytes)} at most "
            f"({process.stage}){gpu}"
        )
    parts = ", ".join(f"{name} {size(num)}" for name, num in plan.disk.items() if num >= 500)
    yield f"disk     {size(plan.disk_bytes)} ({parts})"
    labels = plan.labels
    yield (
        f"labels   {labels.a_round:,} a round, {labels.number:,} in all"
        + (f", {labels.test:,} for the test" if labels.test else "")
        + (
            f": {_money(labels.a_round * labels.price_minor, plan)} a round, "
            if labels.price_minor
            else ""
        )
        + (f"{_money(labels.amount_minor, plan)} in all" if labels.price_minor else "")
        + "; waits for answers are not in here"
    )
    if plan.stops:
        yield f"ends     after round {last}: {plan.stops}"
    for note in plan.notes:
        yield f"note     {note}"


def _row(name: str, phases: tuple[Phase, ...], is_sum: bool = False) -> str:
    wall_s = sum(one.wall_s for one in phases)
    first, last = format_seconds(phases[0].wall_s), format_seconds(phases[-1].wall_s)
    if is_sum:
        first = last = ""
    elif len(phases) == 1:
        last = ""
    cells = [
        sum(getattr(one, what) for one in phases)
        for what in ("read_bytes", "written_bytes", "sent_bytes")
    ]
    sizes = " ".join(f"{size(cell) if cell >= 500 else '-':>9}" for cell in cells)
    cpu_h, gpu_h = (sum(getattr(one, n) for one in phases) / 3_600 for n in ("cpu_s", "gpu_s"))
    gpu = f"{gpu_h:.4f}" if gpu_h else "-"
    return (
        f"{name:8} {first:>9} {last:>9} {format_seconds(wall_s):>9} {cpu_h:>8.4f} {gpu:>8} {sizes}"
    )


def _process(role: str, number: int, peak_bytes: float) -> str:
    return f"{f'{number} x ' if number > 1 else ''}{role} {peak_bytes / 2**30:.2f} GiB"


def _spend(plan: Plan) -> str:
    labels = plan.labels
    text = f"; {format_count(labels.number + labels.test)} labels"
    return text + (f", {_money(labels.amount_minor, plan)}" if labels.price_minor else "")


def _money(amount_minor: int, plan: Plan) -> str:
    return format_money(amount_minor, plan.labels.currency)
