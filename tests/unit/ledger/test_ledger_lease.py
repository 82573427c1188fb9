"""One writer a run: refusal, takeover from the dead, fencing, readers beside a writer."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
from sqlalchemy import update

from rayal.errors import LedgerError
from rayal.ledger import Ledger, schema
from rayal.ledger.lease import Holding, this_process
from rayal.types import LabelEvent

HOLD = """
import sys, time
from rayal.ledger import Ledger
ledger = Ledger.open(sys.argv[1], "run", writer=True)
ledger.start_run({"seed": 1})
ledger.once(0, "selected", lambda: 1)
print("held", flush=True)
time.sleep(100)
"""


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def holder(url):
    command = [sys.executable, "-c", HOLD, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def lease_row(url, **values):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        for name, value in values.items():
            connection.execute(f"UPDATE lease SET {name} = ?", (value,))
        row = connection.execute("SELECT epoch, token, renewed_at FROM lease").fetchone()
    connection.close()
    return row


def test_a_second_live_process_is_refused_and_a_dead_one_taken_over(url, holder):
    with pytest.raises(LedgerError) as error:
        Ledger.open(url, "run", writer=True)
    assert "\n" not in str(error.value)
    assert f"run 'run' is held by process {holder.pid} on " in str(error.value)
    assert "UTC; wait for it or end it" in str(error.value)
    with Ledger.open(url, "other run", writer=True) as other:
        other.start_run({})
    with Ledger.open(url, "run", writer=False) as reader:
        assert reader.state() == "running"
        assert [event.result for event in reader.events()] == [1]
        os.kill(holder.pid, signal.SIGKILL)
        for _ in range(100):  # a zombie until waited for; dead all the same
            if reader.state() == "interrupted":
                break
            time.sleep(0.05)
        assert reader.state() == "interrupted"
    start = time.monotonic()
    with Ledger.open(url, "run", writer=True) as ledger:
        assert time.monotonic() - start < 10
        assert ledger.start_run({"seed": 1}).state == "running"
        assert ledger.once(0, "selected", lambda: 2) == 1
        assert lease_row(url)[0] == 2


def test_a_second_opening_in_the_same_process_is_refused(url):
    with (
        Ledger.open(url, "run", writer=True),
        pytest.raises(LedgerError, match=f"held by process {os.getpid()} "),
    ):
        Ledger.open(url, "run", writer=True)
    with Ledger.open(url, "run", writer=True) as ledger:
        ledger.start_run({})


def test_a_writer_that_was_taken_over_writes_nothing(url):
    with Ledger.open(url, "run", writer=True) as stale:
        stale.start_run({})
        lease_row(url, token="")  # as if this process had died
        with Ledger.open(url, "run", writer=True) as ledger:
            ledger.once(0, "selected", lambda: 1)
            for write in (
                lambda: stale.once(0, "ordered", lambda: 2),
                lambda: stale.set_state("done"),
                lambda: stale.start_run({}),
                lambda: stale.append_labels(0, "j", [LabelEvent(1, "a", "e")]),
            ):
                with pytest.raises(LedgerError, match=r"was taken over by .*epoch 2, ours is 1"):
                    write()
            assert [event.step for event in ledger.events()] == ["selected"]
            assert ledger.labels() == []
            stale.close()
            ledger.once(0, "ordered", lambda: 3)  # the stale one gave nothing of ours back


def test_the_lease_is_renewed_without_writes(url):
    with Ledger.open(url, "run", writer=True, lease_s=0.6) as ledger:
        ledger.start_run({})
        before = lease_row(url)[2]
        time.sleep(1.0)
        assert lease_row(url)[2] > before + 0.3
    after = lease_row(url)
    assert after[1] == ""
    time.sleep(0.5)
    assert lease_row(url) == after


def test_a_holder_on_another_host_is_waited_for(url):
    with Ledger.open(url, "run", writer=True) as ledger:
        ledger.start_run({})
        change = update(schema.lease).values(host="elsewhere", host_key="another host")
        ledger._store.write(lambda connection: connection.execute(change))
        with Ledger.open(url, "run", writer=False) as reader:
            assert reader.state() == "running"
            assert reader.state(now=time.time() + 61) == "interrupted"
        with pytest.raises(LedgerError, match=r"held by process \d+ on elsewhere"):
            Ledger.open(url, "run", writer=True)
        lease_row(url, renewed_at=time.time() - 61)
        with Ledger.open(url, "run", writer=True) as taken:
            taken.set_state("done")


def test_who_is_alive():
    me = this_process()
    held = Holding(3, "token", me, since=0.0, renewed_at=100.0, lease_s=60.0)
    assert held.is_alive(me, 1e9, {"token"})
    assert not held.is_alive(me, 101.0, {"another"})
    assert not replace(held, token="").is_alive(me, 101.0, {""})
    parent = replace(me, pid=os.getppid(), started=psutil.Process(os.getppid()).create_time())
    assert replace(held, process=parent).is_alive(me, 1e9, ())
    parent = replace(parent, started=parent.started - 1_000.0)
    assert not replace(held, process=parent).is_alive(me, 101.0, ())
    reused = replace(me, started=me.started - 1_000.0)  # the same number, an earlier process
    assert not replace(held, process=reused).is_alive(me, 101.0, {"token"})
    gone = replace(me, pid=2**22 + 1)
    assert not replace(held, process=gone).is_alive(me, 101.0, {"token"})
    far = replace(held, process=replace(me, host_key="far"))
    assert far.is_alive(me, 159.9, ())
    assert not far.is_alive(me, 160.1, ())


def test_readers_change_nothing(url):
    with pytest.raises(LedgerError, match="there is no ledger at "):
        Ledger.open(url, "run", writer=False)
    with Ledger.open(url, "run", writer=True) as ledger:
        ledger.start_run({})
        row = lease_row(url)
        with Ledger.open(url, "run", writer=False) as reader:
            for write in (
                lambda: reader.once(0, "a", lambda: 1),
                lambda: reader.set_state("done"),
            ):
                with pytest.raises(LedgerError, match="open for reading only"):
                    write()
            with pytest.raises(LedgerError, match="readonly"):
                reader._store.write(
                    lambda connection: connection.exec_driver_sql("UPDATE runs SET state = 'x'")
                )
        assert lease_row(url) == row
    with pytest.raises(LedgerError, match="closed"):
        ledger.once(0, "a", lambda: 1)
