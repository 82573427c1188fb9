"""The nouns of a plan: phases, processes, disk, money, and their sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# In the order of a run. `order` and `label` are without the wait for whoever answers.
NAMES = ("start", "score", "select", "fetch", "order", "label", "train", "test", "files")


@dataclass(frozen=True)
class Phase:
    """One step of one round; round -1 is before the first."""

    name: str
    round: int
    wall_s: float
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    read_bytes: float = 0.0
    written_bytes: float = 0.0
    sent_bytes: float = 0.0  # between processes


@dataclass(frozen=True)
class Process:
    """So many processes of one kind, and the most that one of them has in memory: its own pages,
    and its share of files that several of them map."""

    role: str
    number: int
    peak_bytes: float
    stage: str  # when
    gpu_bytes: float = 0.0


@dataclass(frozen=True)
class Labels:
    """What is bought, and what that costs at the labeler's price."""

    a_round: int
    number: int
    test: int  # of the test split, ordered first
    price_minor: int
    currency: str

    @property
    def amount_minor(self) -> int:
        """The sum, test labels included."""
        return (self.number + self.test) * self.price_minor


@dataclass(frozen=True)
class Plan:
    """What a run will take. `disk` are bytes by what they are for; those of one pass's survivors
    are removed when its round is over."""

    phases: tuple[Phase, ...]
    processes: tuple[Process, ...]
    disk: Mapping[str, float]
    labels: Labels
    num_rounds: int
    stops: str = ""  # which rule ends it before `num_rounds`, as the run will say it
    spread: float = 0.0  # of the scoring rate among shards, a share
    notes: tuple[str, ...] = ()
    took_s: float = 0.0  # to make this plan

    @property
    def wall_s(self) -> float:
        """Seconds of the whole run, without waits for labels."""
        return sum(phase.wall_s for phase in self.phases)

    @property
    def cpu_hours(self) -> float:
        """CPU-hours of all processes together."""
        return sum(phase.cpu_s for phase in self.phases) / 3_600

    @property
    def gpu_hours(self) -> float:
        """GPU-hours: how long GPUs are held by a phase that computes on them."""
        return sum(phase.gpu_s for phase in self.phases) / 3_600

    @property
    def disk_bytes(self) -> float:
        """Bytes on the run's disk at most."""
        return sum(self.disk.values())

    @property
    def memory_bytes(self) -> float:
        """Bytes in memory of all processes together, if all peaked at once."""
        return sum(one.number * one.peak_bytes for one in self.processes)

    def of(self, name: str) -> tuple[Phase, ...]:
        """Gives the phases of one name, by round."""
        return tuple(phase for phase in self.phases if phase.name == name)

    def to_json(self) -> dict[str, Any]:
        """Gives a JSON-able form, with the sums."""
        return {
            **asdict(self),
            "wall_s": self.wall_s,
            "cpu_hours": self.cpu_hours,
            "gpu_hours": self.gpu_hours,
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "labels": {**asdict(self.labels), "amount_minor": self.labels.amount_minor},
        }
