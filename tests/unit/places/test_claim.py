"""One process at a time in a folder of a store, whoever dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid

import pytest
from buckets import Bucket

from rayal.errors import PlaceError
from rayal.places import Place, claim
from rayal.places.claim import Held, claimed

FAR = json.dumps({"who": "process 7 on far", "kernel": "another", "pid": 7, "started": 0}).encode()


@pytest.fixture
def folder(bucket: Bucket) -> Place:
    """An empty folder for the objects of a claim."""
    return Place.of(bucket.url) / uuid.uuid4().hex / ".lock"


def _names(folder: Place) -> list[str]:
    return [entry.name for entry in folder.list()]


def test_one_at_a_time(folder: Place) -> None:
    with claimed(folder):
        assert _names(folder) == ["00000001"]
        with pytest.raises(Held) as caught, claimed(folder):
            raise AssertionError("two are in")
        assert caught.value.who.startswith(f"process {os.getpid()} on ")
        assert _names(folder) == ["00000001"]
    assert _names(folder) == []
    with claimed(folder) as again:
        again.check()


def test_of_many_at_once_one_is_in(folder: Place) -> None:
    ready, counts = threading.Barrier(6, timeout=60), {"in": 0, "held": 0}
    tried = threading.Barrier(6, timeout=60)

    def ask() -> None:
        ready.wait()
        try:
            with claimed(folder):
                counts["in"] += 1
                tried.wait()
        except Held:
            counts["held"] += 1
            tried.wait()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts == {"in": 1, "held": 5}
    assert _names(folder) == []


def test_a_silent_owner_on_another_machine_is_passed_over_after_a_while(folder: Place) -> None:
    (folder / "00000004").put_bytes(FAR)
    with pytest.raises(Held, match="process 7 on far"), claimed(folder, stale_s=2.0):
        raise AssertionError("two are in")
    time.sleep(3.1)  # a store gives whole seconds
    with claimed(folder, stale_s=2.0):
        assert _names(folder) == ["00000005"]


def test_an_owner_that_gives_signs_of_life_is_not(
    folder: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claimed(folder, stale_s=4.0) as held:
        monkeypatch.setattr(claim, "_kernel", lambda: "elsewhere")
        for _ in range(6):
            time.sleep(1.0)
            with pytest.raises(Held), claimed(folder, stale_s=4.0):
                raise AssertionError("two are in")
        held.check()


def test_an_ended_process_of_this_machine_is_passed_over_at_once(folder: Place) -> None:
    take = (
        "import os, sys; from rayal.places import Place; from rayal.places.claim import claimed\n"
        "with claimed(Place.of(sys.argv[1])): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", take, folder.url], check=True)
    assert _names(folder) == ["00000001"]
    with claimed(folder):
        assert _names(folder) == ["00000002"]


def test_whoever_was_passed_over_notices(folder: Place) -> None:
    with claimed(folder) as held:
        held.own.remove()
        (folder / "00000002").put_bytes(FAR)
        with pytest.raises(
            PlaceError, match="was taken over by another process, for this one gave"
        ):
            held.check()


def test_a_smaller_number_that_is_alive_wins(folder: Place) -> None:
    with claimed(folder) as held:
        (folder / "00000000").put_bytes(FAR)
        with pytest.raises(PlaceError, match="was taken over by another process"):
            held.check()


def test_a_number_that_came_again_is_not_ones_own(folder: Place) -> None:
    """Once all who came have gone, numbers begin again: a third has the number of the first."""
    with claimed(folder) as held:
        held.own.put_bytes(FAR)
        with pytest.raises(PlaceError, match="was taken over by another process"):
            held.check()
    assert held.own.read_bytes() == FAR
