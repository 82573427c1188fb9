"""A real Ray cluster of two nodes on this machine, in a process of its own.

`ray.cluster_utils.Cluster` is for Ray's developers and may change: this file alone knows it. Nodes
are watched closely, so that a lost one is noticed in a second or two, and not in a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

WATCH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


@dataclass
class TwoNodes:
    """The cluster as its users see it: an address."""

    address: str
    process: subprocess.Popen[str]

    def lose_one(self) -> None:
        """Kills the second node with all its workers, at once and without a farewell."""
        self._say("lose")

    def num_alive(self) -> int:
        """Gives how many nodes the head counts."""
        return int(self._say("count"))

    def _say(self, word: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def two_nodes(num_cpus: int, log: Path) -> Iterator[TwoNodes]:
    """Gives a cluster of two nodes with `num_cpus` each, gone with all its processes in the end."""
    environment = {**os.environ, "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled")}
    with log.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, __file__, str(num_cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env=environment,
            cwd=log.parent,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    family: list[psutil.Process] = []
    try:
        hello = process.stdout.readline()
        assert hello, log.read_text(errors="replace")
        family = psutil.Process(process.pid).children(recursive=True)
        yield TwoNodes(json.loads(hello)["address"], process)
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=30)
        for one in alive:  # of our own family, by their handles
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def main(num_cpus: int) -> None:
    """Starts the nodes, says where they are, and does what it is told until nobody is there."""
    from ray.cluster_utils import Cluster

    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray talks on stdout
    store = 100 * 2**20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": num_cpus,
            "object_store_memory": store,
            "include_dashboard": False,
            "_system_config": WATCH,
        },
    )
    second = cluster.add_node(num_cpus=num_cpus, object_store_memory=store)
    print(json.dumps({"address": cluster.address}), file=said, flush=True)
    for line in sys.stdin:
        if line.strip() == "lose":
            cluster.remove_node(second, allow_graceful=False)
        print(len(cluster.list_all_nodes()), file=said, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
