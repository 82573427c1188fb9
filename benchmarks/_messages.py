"""What Ray takes of the driver's time for a message: measured apart from what it carries."""

from __future__ import annotations

import time
from typing import NamedTuple

from rayal.engine import launch

_NUM_CALLS, _NUM_WAITS = 2_000, 50


class Costs(NamedTuple):
    """CPU seconds of the driver's process."""

    call_s: float  # to send a call and to take its result
    wait_s: float  # to wait for one of many calls

    def of(self, num_calls: int, num_waits: int) -> float:
        """Gives what so many take."""
        return num_calls * self.call_s + num_waits * self.wait_s


def of_ray(num_waiting: int) -> Costs:
    """Gives the costs with so many calls under way, from a Ray of our own with one actor."""
    launch.start("local", 1, 0, 0.5, ())  # before the import: Ray reads its environment then
    import ray

    try:
        echo = ray.remote(num_cpus=0.1)(_Echo)
        quick, busy = echo.remote(), echo.remote()
        ray.get([quick.say.remote(0, ""), busy.say.remote(0, "")])
        begin = time.process_time()
        for call in [quick.say.remote(0, "x" * 400) for _ in range(_NUM_CALLS)]:
            ray.get(call)
        call_s = (time.process_time() - begin) / _NUM_CALLS
        waiting = [busy.say.remote(600, "")] + [
            busy.say.remote(0, "") for _ in range(num_waiting - 1)
        ]
        done = quick.say.remote(0, "")
        ray.get(done)
        some = [*waiting[: num_waiting // 2], done, *waiting[num_waiting // 2 :]]
        begin = time.process_time()
        for _ in range(_NUM_WAITS):
            ray.wait(some, num_returns=1, timeout=5.0)
        wait_s = (time.process_time() - begin) / _NUM_WAITS
        ray.kill(busy)
    finally:
        launch.stop(True)
    return Costs(call_s, wait_s)


class _Echo:
    def say(self, seconds: float, what: str) -> str:
        time.sleep(seconds)
        return what
