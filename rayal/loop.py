"""The rounds: select, order, label, snapshot, train, test; every step once, whatever dies.

`Loop.run` is the whole of active learning here. A step that is in the ledger is not done again: the
same command after a crash, a wait or a reboot goes on where the run stood.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayal import metrics, preflight
from rayal.choosing import Asked, Chooser
from rayal.consensus import Consensus
from rayal.doorbell import Waiter, answering
from rayal.engine.rescoring import Rescoring
from rayal.engine.scoring import Engine, Fitting, Pass, Testing
from rayal.engine.worker import has_undecodable
from rayal.errors import RayalError
from rayal.gold import Gold
from rayal.history import History
from rayal.identity import MAY_CHANGE, MAY_GROW, name_of
from rayal.keys import Keys
from rayal.labelling import Closing, Labelling
from rayal.ledger import Ledger, without_password
from rayal.models.explain import cause_of
from rayal.ordering import Orders
from rayal.pool import Pool
from rayal.progress import Reporter, Stopwatch
from rayal.report import write_report
from rayal.rundir import RunDir
from rayal.sharing import adopt_round_0
from rayal.strategy import Proxy, Strategy
from rayal.test_split import TEST, choose, read_file
from rayal.types import (
    Batch,
    Checkpoint,
    Labeler,
    Picks,
    Predictor,
    Progress,
    Snapshot,
    StoppingRule,
    TestResult,
    Trainer,
    Vocabulary,
)

if TYPE_CHECKING:
    import pyarrow as pa

_NEWER = (("proxy", None), ("max_open_rounds", 1), ("gold_share", 0.0))


class Loop:
    """One run. Parts come built; what is known only at run time goes to their methods."""

    def __init__(
        self,
        pool: Pool,
        engine: Engine,
        strategy: Strategy,
        cold_start: Strategy,
        predictor: Predictor,
        trainer: Trainer,
        labeler: Labeler,
        stopping: StoppingRule,
        num_rounds: int,
        budget: int,
        run_dir: str,
        seed: int = 0,
        metric: str | None = None,
        vocabulary: Vocabulary | None = None,
        ledger_url: str | None = None,
        poll_s: float | None = None,
        poll_for_s: float = 7 * 86_400.0,
        max_rejected_share: float = 0.01,
        begin_from: str | None = None,
        test_labels: str | None = None,
        test_budget: int = 0,
        proxy: Proxy | None = None,
        rescoring: Rescoring | None = None,
        consensus: Consensus | None = None,
        max_amount_minor: int | None = None,
        max_open_rounds: int = 1,
        deadline_s: float | None = None,
        least_share: float = 1.0,
        doorbell_port: int | None = None,
        gold_share: float = 0.0,
    ) -> None:
        self.pool, self.engine, self.predictor, self.trainer = pool, engine, predictor, trainer
        self.labeler, self.stopping = labeler, stopping
        self.num_rounds, self.budget, self.seed = num_rounds, budget, seed
        self.vocabulary = preflight.vocabulary_of(pool, vocabulary)
        kind = self.vocabulary.kind
        self.metric = metric or metrics.METRICS[kind][0]
        self.poll_s, self.poll_for_s = poll_s, poll_for_s
        self.begin_from, self.max_amount_minor = begin_from, max_amount_minor
        self.max_open_rounds, self.closing = max_open_rounds, Closing(deadline_s, least_share)
        self.doorbell_port, self.waiter, self.gold_share = doorbell_port, Waiter(), gold_share
        self.test_labels, self.test_budget = test_labels, test_budget
        self.proxy = proxy and proxy.for_kind(kind, self.vocabulary.classes)
        self.consensus = consensus or Consensus()
        self.exam: Snapshot | None = None  # test labels that the pool does not hold
        self.dir = RunDir(run_dir)
        self.ledger_url = ledger_url or self.dir.ledger_url
        self.clock, self.progress = Stopwatch(), Reporter()
        preflight.check_sizes(pool, num_rounds, budget)
        preflight.check_ranges(poll_s, poll_for_s, max_rejected_share, test_budget)
        preflight.check_waits(max_open_rounds, deadline_s, least_share)
        preflight.check_gold(pool, gold_share, kind, test_labels is not None)
        preflight.check_columns(pool, predictor)
        preflight.check_vocabulary(trainer, self.metric, self.vocabulary)
        preflight.check_labeler(pool, labeler)
        preflight.check_stopping(pool, stopping, test_labels is not None or test_budget > 0)
        self.strategy = strategy.for_kind(kind, self.vocabulary.classes)
        self.cold_start = cold_start.for_kind(kind, self.vocabulary.classes)
        preflight.check_strategies(pool, self.strategy, self.cold_start, budget)
        preflight.check_proxy(pool, self.proxy, self.strategy, budget, self.vocabulary)
        share, clock, say = max_rejected_share, self.clock, self.progress
        self.rescoring = rescoring
        by_bound = predictor, len(self.vocabulary.classes), rescoring
        self.chooser = Chooser(engine, self.dir, kind, self.proxy, share, clock, say, *by_bound)

    # ----------------------------------------------------------------------------- the rounds

    def run(self, config: Mapping[str, Any]) -> str:
        """Runs until a stopping rule fires or labels are awaited; gives the state it ends in.

        Raises:
            ConfigError: `config`, the resolved configuration, differs from the run's in a key that
                may not change.
            RayalError: whatever went wrong in a step; the ledger keeps all steps before it.
        """
        if note := preflight.check_source(self.pool, self.dir.has_run):
            self.progress.say(note)
        self.dir.path.mkdir(parents=True, exist_ok=True)
        place = without_password(self.ledger_url)
        self._bind_oracle()  # before the folder is claimed: what is refused here can be corrected
        has_begun = self.dir.has_begun(place)
        with Ledger.open(self.ledger_url, self.dir.claim(), writer=True) as self.ledger:
            if has_begun:
                self.ledger.run()  # refuses to begin again beside a ledger that is elsewhere
            self.past = History(self.ledger, self.dir, self.vocabulary, self.consensus)
            recorded = self.ledger.run().config if self.ledger.events() else None
            self.pool, facts = preflight.as_begun(self.pool, recorded, self.vocabulary)
            facts |= preflight.facts_of(self.rescoring)
            # Runs that were begun before there were these keys have none of them.
            known = {key: value for key, value in config.items() if (key, value) not in _NEWER}
            config = {**known, **facts, "ledger_url": place}
            self.name = name_of(config)
            about = self.name, self.vocabulary, self.past.asked_ids, self.max_amount_minor
            told = self.past.gold_of, self.progress.say
            orders = Orders(self.ledger, self.labeler, *about, *told)
            gold = Gold(self.gold_share, self.pool, self.dir, self.seed, self.vocabulary)
            with_them = self.past, gold, self.pool, self._columns(), self.clock, self.progress
            waits = self.poll_s, self.poll_for_s, self.closing, self.waiter
            self.labelling = Labelling(self.ledger, orders, *with_them, *waits)
            self.ledger.start_run(config, may_change=MAY_CHANGE, may_grow=MAY_GROW)
            self.dir.note_ledger(place)
            if self.begin_from is not None:
                adopt_round_0(self.ledger, self.dir, self.begin_from, config)
            try:
                self.engine.open(self.pool, self.predictor, self.trainer, self.proxy)
                with answering(self.waiter, self.labeler, self.doorbell_port):
                    state = self._rounds()
            except Exception as error:
                said = str(error) if isinstance(error, RayalError) else cause_of(error)
                self.ledger.set_state("failed", error=said)
                raise
            finally:
                self.engine.close()
        return state

    def _rounds(self) -> str:
        once = self.ledger.once
        self.models: dict[int, tuple[Checkpoint | None, ...]] = {}  # none: cold start
        if not self.past.has(0 if self.begin_from is None else 1, "ordered"):
            scores = self.strategy if self.num_rounds > 1 else None
            keys = Keys(self.seed, 0)
            preflight.rehearse(self.engine, scores, self.trainer, self.vocabulary, keys)
            if self.proxy is not None:
                preflight.rehearse_proxy(
                    self.engine, self.proxy, self.strategy, self.vocabulary, keys
                )
        if not self.know_test_labels():
            return "waiting"
        finished = self.past.num_finished()
        if finished:
            self.progress.say(f"rounds 0 to {finished - 1} were done before")
        lag = self.max_open_rounds
        t = -1
        for t in self.rounds():
            known = self.models.get(t - lag, (None,))
            batch = once(t, "selected", self.pick, t, *known)
            once(t, "ordered", self.labelling.order, t, batch)
            if t - lag + 1 >= 0 and not self.finish(t - lag + 1, finished):
                return "waiting"
        for last in range(max(0, t - lag + 2), t + 1):
            if not self.finish(last, finished):
                return "waiting"
        self.progress.say(f"done: {self.reason}")
        self.ledger.set_state("done")
        self.dir.clear_passes()
        write_report(self.ledger, self.dir)
        return "done"

    def finish(self, t: int, finished: int) -> bool:
        """Waits for the labels of round t, trains and tests; False: labels are missing."""
        once = self.ledger.once
        snapshot = self.labelling.wait(t, self.past.record(t, "selected"))
        if snapshot is None:
            return False
        start, *by_proxy = self.models.get(t - 1, (None,))
        checkpoint = once(t, "trained", self.fit, t, snapshot, start)
        proxies = []
        if self.proxy is not None:
            proxies = [once(t, "proxied", self.fit_proxy, t, snapshot, *by_proxy)]
        once(t, "tested", self.test, t, checkpoint)
        self.models[t] = (checkpoint, *proxies)
        self.models.pop(t - self.max_open_rounds, None)
        if t >= finished:
            self.show(t)
        return True

    def rounds(self) -> Iterator[int]:
        """Gives the rounds to run, up to the first stopping rule; begun rounds are always ended."""
        for t in range(self.num_rounds):
            self.reason = None if self.past.has(t, "selected") else self.stop_before(t)
            if self.reason is not None:
                return
            yield t
        self.reason = f"num_rounds={self.num_rounds} are done"

    def stop_before(self, t: int) -> str | None:
        """Gives why round t should not start, or None."""
        num_left = self.past.num_left(t, self.pool.num_rows)
        if num_left == 0:
            return "every row of the pool is labelled, ordered or cannot be decoded"
        next_labels = min(self.budget, num_left)
        on_order, cost = self.past.num_on_order(t), self.labelling.expected_cost
        progress = Progress(
            t,
            self.labelling.num_labels() + on_order,
            self.ledger.spend()["amount_minor"] + cost(on_order),
            (datetime.now(UTC) - datetime.fromisoformat(self.ledger.run().created)).total_seconds(),
            num_left,
            tuple(self.past.record(done, "tested") for done in range(t - self.max_open_rounds + 1)),
            next_labels,
            cost(next_labels),
        )
        why = self.stopping.stop(progress)
        return why or preflight.over_limit(progress, self.max_amount_minor)

    # ------------------------------------------------------------------------------ the steps

    def pick(
        self, t: int, checkpoint: Checkpoint | None, by_proxy: Checkpoint | None = None
    ) -> Batch:
        """Scores the pool, chooses a batch and writes it.

        A pass without a model decodes nothing. Where its picks hold a row that no model could read,
        it is done again with every row decoded, so that no label is bought for such a row.
        """
        self.pool = preflight.newest(self.pool, self.engine, self.vocabulary, self.progress.say)
        done, picks, rows = self._choose(t, checkpoint, by_proxy, decode=False)
        if has_undecodable(self.predictor, rows):
            done, picks, rows = self._choose(t, checkpoint, by_proxy, decode=True)
        batch = self.dir.write_batch(t, picks, rows)
        said: dict[str, Any] = {"selection": picks.note} if picks.note else {}
        said["pool"] = self.pool.named
        said |= {} if done.rescored is None else {"rescoring": done.rescored}
        self.ledger.note(tallies=done.tallies.to_json(), hardware=self.engine.describe(), **said)
        self._note_seconds()
        return batch

    def _choose(
        self,
        t: int,
        checkpoint: Checkpoint | None,
        by_proxy: Checkpoint | None,
        decode: bool,
    ) -> tuple[Pass, Picks, pa.Table]:
        strategy = self.cold_start if checkpoint is None else self.strategy
        asked = Asked(
            t,
            strategy,
            self.budget,
            Keys(self.seed, t),
            self.past.taken(t),
            self.name,
            checkpoint,
            by_proxy,
            decode,
        )
        return self.chooser.choose(self.pool, asked)

    def know_test_labels(self) -> bool:
        """Reads or orders the labels of the test split where the pool has none; False: not all
        of an order have come yet."""
        once = self.ledger.once
        if self.test_labels is not None:
            content = Path(self.test_labels).expanduser()
            mark = hashlib.sha256(content.read_bytes()).hexdigest() if content.exists() else ""
            self.exam = once(TEST, "labelled", lambda _: self._read_test_labels(), mark)
        elif self.test_budget:
            each = self.labelling.orders.price_minor
            preflight.check_test_order(self.stopping, self.test_budget, each)
            batch = once(TEST, "selected", self.pick_test, self.test_budget)
            once(TEST, "ordered", self.labelling.order, TEST, batch)
            self.exam = self.labelling.wait(TEST, batch)
            return self.exam is not None
        return True

    def pick_test(self, num_rows: int) -> Batch:
        """Draws the test rows to order, and writes them as a batch."""
        picks = choose(self.pool, num_rows, Keys(self.seed, TEST))
        rows = self.engine.rows(picks.ids, self.pool.schema.names)
        return self.dir.write_batch(TEST, picks, rows)

    def _read_test_labels(self) -> Snapshot:
        table = read_file(str(self.test_labels), self.pool, self.vocabulary)
        return self.dir.write_labels(TEST, table)

    def fit(self, t: int, snapshot: Snapshot, start: Checkpoint | None) -> Checkpoint:
        """Trains on the snapshot."""
        if warning := self.past.unseen(t + 1):
            self.progress.say(f"warning: {warning}")
        return self._fit(t, self.trainer, snapshot, start, self.dir.checkpoint(t))

    def fit_proxy(self, t: int, snapshot: Snapshot, start: Checkpoint | None = None) -> Checkpoint:
        """Trains the proxy on the snapshot."""
        assert self.proxy is not None
        out = self.dir.checkpoint(t, "proxy")
        return self._fit(t, self.proxy.trainer, snapshot, start, out)

    def _fit(
        self, t: int, trainer: Trainer, snapshot: Snapshot, start: Checkpoint | None, out: Path
    ) -> Checkpoint:
        out.parent.mkdir(parents=True, exist_ok=True)
        fitting = Fitting(
            trainer,
            str(self.dir.inside(snapshot.path)),
            self.vocabulary,
            None if start is None else str(self.dir.inside(start.path)),
            str(out),
            Keys(self.seed, t),
        )
        what = "train" if trainer is self.trainer else "train proxy"
        with (
            self.clock("train"),
            self.progress.phase(f"round {t} {what}", snapshot.num_rows) as bar,
        ):
            checkpoint = self.engine.fit(fitting)
            bar.advance(snapshot.num_rows)
        self._note_seconds()
        return Checkpoint(self.dir.relative(out), checkpoint.model_id, checkpoint.num_members)

    def test(self, t: int, checkpoint: Checkpoint) -> TestResult:
        """Measures the checkpoint on the test split."""
        path = str(self.dir.inside(checkpoint.path))
        exam = None if self.exam is None else str(self.dir.inside(self.exam.path))
        testing = Testing(checkpoint, path, self.vocabulary, Keys(self.seed, t), exam)
        total = self.pool.num_test_rows
        with self.clock("test"), self.progress.phase(f"round {t} test", total) as bar:
            tallies = self.engine.test(testing, bar)
        self._note_seconds()
        return metrics.metric_of(self.vocabulary.kind, self.metric, tallies)

    def show(self, t: int) -> None:
        """Says how the round ended, writes the report, and removes the survivors of its pass."""
        result: TestResult = self.past.record(t, "tested")
        value = "no test labels" if not result.num_rows else f"{result.metric} is not defined"
        if result.value is not None:
            value = f"{result.metric} {result.value:.4f}"
        self.ledger.set_state("running")
        self.progress.say(f"round {t}: {len(self.past.labels(t + 1))} labels, {value}")
        self.dir.clear_passes(t)
        write_report(self.ledger, self.dir)

    # -------------------------------------------------------------------------------- below

    def _columns(self) -> tuple[str, ...]:
        """Gives the columns that models read, which a snapshot holds."""
        of_proxy = () if self.proxy is None else self.proxy.predictor.columns()
        return tuple(dict.fromkeys((*self.predictor.columns(), *of_proxy)))

    def _bind_oracle(self) -> None:
        if (bind := getattr(self.labeler, "bind", None)) is not None:
            bind(
                lambda ids: self.pool.secret_labels(ids),
                self.vocabulary,
                str(self.dir.path / "labeler"),
            )

    def _note_seconds(self) -> None:
        self.ledger.note(seconds=self.clock.take())
