"""What a run refuses before it starts: parts that do not fit the pool, or one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rayal import metrics
from rayal.columns import vectors
from rayal.engine.rescoring import Rescoring
from rayal.engine.scoring import Engine, Rehearsal
from rayal.errors import ConfigError, PoolError
from rayal.keys import Keys
from rayal.pool import Pool
from rayal.strategy import Proxy, Strategy
from rayal.types import (
    OUTPUTS,
    Labeler,
    Needs,
    Predictor,
    Progress,
    StoppingRule,
    Trainer,
    Vocabulary,
    source_of,
)


def vocabulary_of(pool: Pool, given: Vocabulary | None) -> Vocabulary:
    """Gives what a label may be: as configured, or as the pool's label column says.

    Raises:
        ConfigError: nothing says it, or there is less than two classes.
    """
    found = given or pool.vocabulary
    if found is None:
        raise ConfigError(
            "the pool has no label column, so nothing says what a label may be; ingest with "
            "--label-column, or give a vocabulary, for example "
            "vocabulary=class 'vocabulary.classes=[cat,dog]'"
        )
    if found.kind != "number" and len(found.classes) < 2:
        raise ConfigError(
            f"the vocabulary has {len(found.classes)} class(es), "
            f"{', '.join(map(str, found.classes)) or 'none'}; "
            "expected 2 or more; check --label-column or vocabulary.classes"
        )
    return found


def check_sizes(pool: Pool, num_rounds: int, budget: int) -> None:
    """Refuses a budget that no round, or no pool, can meet.

    Raises:
        ConfigError: it is below 1 or above the pool.
    """
    if budget < 1 or num_rounds < 1:
        raise ConfigError(f"budget={budget} and num_rounds={num_rounds} must both be 1 or more")
    if not pool.num_rows and pool.only is not None:
        raise ConfigError(
            f"pool.only={pool.only.text} lets no row of the pool {pool.path}; correct its values"
        )
    if budget > pool.num_rows:
        raise ConfigError(f"budget={budget} is more than the pool's {pool.num_rows} rows; lower it")


def check_ranges(
    poll_s: float | None, poll_for_s: float, max_rejected_share: float, test_budget: int
) -> None:
    """Refuses waits, shares and counts that cannot be.

    Raises:
        ConfigError: one is out of its range.
    """
    counts = {"poll_s": poll_s, "poll_for_s": poll_for_s, "test_budget": test_budget}
    for name, value in counts.items():
        if value is not None and value < 0:
            raise ConfigError(f"{name} is {value:g}, expected 0 or more; correct it")
    if not 0 <= max_rejected_share <= 1:
        raise ConfigError(
            f"max_rejected_share is {max_rejected_share:g}, expected 0 to 1; correct it"
        )


def check_source(pool: Pool, has_run: bool) -> str | None:
    """Refuses a pool of what its source held before, to a new run; one that has begun goes on with
    the rows that it began with. Gives a line about it, or None.

    Raises:
        ConfigError: the source holds something else by now, and no run was started here.
    """
    if not pool.changed:
        return None
    what = f"source={pool.changed} has changed since the pool {pool.path} was made of it"
    if not has_run:
        raise ConfigError(
            f"{what}; add its new files with rayal ingest, name a new pool.path to make one of it "
            "as it is now, or leave source out to take the pool as it is"
        )
    return f"note: {what}; this run goes on with the pool as it is"


def facts_of(rescoring: Rescoring | None) -> dict[str, Any]:
    """Gives what a run's answers depend on where not every row is scored in every pass."""
    if rescoring is None or not rescoring.max_missed_share:
        return {}
    return {"rescoring_may_miss": [rescoring.max_missed_share, rescoring.audit_share]}


def as_begun(
    pool: Pool, recorded: Mapping[str, Any] | None, vocabulary: Vocabulary
) -> tuple[Pool, dict[str, Any]]:
    """Gives the pool, tested on the rows that it had when the run began, and what the run's answers
    depend on beside its configuration. `recorded` is the configuration of a run that has steps.

    A pool may grow: its facts are those of the version that the run began with. Any other pool has
    facts of its own, by which it is refused.

    Raises:
        ConfigError: it has grown by classes that the run does not know.
    """
    facts: dict[str, Any] = {"kind": vocabulary.kind, "classes": list(vocabulary.classes)}
    if pool.features is not None:
        facts["pool_features"] = f"{pool.features.key} as {pool.features.column}"
    if pool.only is not None:
        facts["pool_only"] = pool.only.text
    version = None if recorded is None else pool.manifest.version_of(recorded["pool_content"])
    if recorded is None or version is None:
        version = len(pool.manifest.versions)
        facts |= {"pool_content": pool.content_hash, "pool_rows": pool.num_rows}
    else:
        facts |= {name: recorded[name] for name in ("pool_content", "pool_rows")}
        if vocabulary == pool.vocabulary:
            check_grown(pool, replace(vocabulary, classes=tuple(recorded["classes"])))
    return replace(pool, tested=version), facts


def newest(pool: Pool, engine: Engine, vocabulary: Vocabulary, say: Callable[[str], None]) -> Pool:
    """Gives the pool as it lies there now, which the engine scores from now on.

    Raises:
        ConfigError: it has grown by classes that the run does not know.
    """
    now = pool.newest()
    if now.manifest == pool.manifest:
        return pool
    if vocabulary == pool.vocabulary:  # and not configured, so that it could be of any pool
        check_grown(now, vocabulary)
    engine.renew(now)
    say(f"the pool has changed from {pool.num_rows:,} rows to {now.num_rows:,}")
    return now


def check_grown(pool: Pool, vocabulary: Vocabulary) -> None:
    """Refuses a pool that has classes which a run does not know.

    Raises:
        ConfigError: there are such.
    """
    known = set(vocabulary.classes)
    new = [name for name in (pool.vocabulary or vocabulary).classes if name not in known]
    if new:
        some = ", ".join(repr(name) for name in new[:8]) + (", ..." if len(new) > 8 else "")
        raise ConfigError(
            f"the pool {pool.path} has grown by {len(new)} class(es) that this run does not know: "
            f"{some}; a model of {len(known)} classes cannot learn them: start a new run_dir"
        )


def check_strategies(pool: Pool, strategy: Strategy, cold_start: Strategy, budget: int) -> None:
    """Refuses needs that nothing can meet.

    Raises:
        ConfigError: the cold start needs a model, or a need is neither output nor column of
            numbers.
    """
    for part in (strategy, cold_start):
        part.keep(budget)
    first = [source_of(n) for n in _needs_of(cold_start)]
    wants_model = [name for name in first if name in OUTPUTS]
    if wants_model:
        raise ConfigError(
            f"cold_start needs {', '.join(wants_model)}, but round 0 has no model; use one "
            "that needs none, such as strategy@cold_start=random"
        )
    later = (source_of(n) for n in _needs_of(strategy))
    for name in (*first, *later):
        if name not in OUTPUTS and name not in pool.schema.names:
            raise ConfigError(
                f"'{name}' is neither an output ({', '.join(OUTPUTS)}) nor a column of the "
                f"pool ({', '.join(pool.schema.names)}); name one of them in the strategy"
            )
    for need in (*_needs_of(cold_start), *_needs_of(strategy)):
        if need == source_of(need) and need not in OUTPUTS:
            _check_numbers(pool, need)


def _check_numbers(pool: Pool, name: str) -> None:
    try:
        vectors(pool.schema.empty_table(), name)
    except PoolError as error:
        raise ConfigError(
            f"the strategy needs numbers, and {error}; or name another column in the strategy"
        ) from error


def _needs_of(strategy: Strategy) -> Needs:
    first = strategy.needs_of_restriction
    return (*first, *strategy.needs_of_scorer, *strategy.selector.needs)


def check_columns(pool: Pool, predictor: Predictor) -> None:
    """Refuses a model whose columns the pool lacks, before a label is bought for it.

    Raises:
        ConfigError: it does; the message names the first one.
    """
    for name in predictor.columns():
        if name not in pool.schema.names:
            raise ConfigError(
                f"the model reads column '{name}', which the pool does not have (it has: "
                f"{', '.join(pool.schema.names)}); correct model.transform.column"
            )


def check_vocabulary(trainer: Trainer, metric: str, vocabulary: Vocabulary) -> None:
    """Refuses a trainer or a metric for labels of another kind.

    Raises:
        ConfigError: the trainer says so, or this kind of label has no such metric.
    """
    check = getattr(trainer, "check", None)
    if check is not None:
        check(vocabulary)
    metrics.check_name(vocabulary.kind, metric)


def check_stopping(pool: Pool, stopping: StoppingRule, has_test_labels: bool) -> None:
    """Refuses a rule that waits for what will never be there.

    Raises:
        ConfigError: a target for a metric, and the test rows have no labels.
    """
    check = getattr(stopping, "check", None)
    if check is not None:
        own = (label for shard in pool.test_shards for label in pool.test_labels(shard) or ())
        check(has_test_labels or any(label is not None for label in own))


def check_waits(max_open_rounds: int, deadline_s: float | None, least_share: float) -> None:
    """Refuses rounds in flight and deadlines that cannot be.

    Raises:
        ConfigError: one is out of its range.
    """
    if max_open_rounds < 1:
        raise ConfigError(f"max_open_rounds is {max_open_rounds}, expected 1 or more; correct it")
    if deadline_s is not None and not deadline_s >= 0:
        raise ConfigError(f"deadline_s is {deadline_s:g}, expected 0 or more; correct it")
    if not 0 <= least_share <= 1:
        raise ConfigError(f"least_share is {least_share:g}, expected 0 to 1; correct it")
    if deadline_s is None and least_share < 1:
        raise ConfigError(
            f"least_share is {least_share:g}, but there is no deadline_s after which a round goes "
            "on with that share of its labels; give one, or leave least_share out"
        )


def check_gold(pool: Pool, share: float, kind: str, has_test_labels: bool) -> None:
    """Refuses gold questions that nothing can be asked of.

    Raises:
        ConfigError: the share is out of its range, no label of the test split is known, or the
            labels are numbers.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"gold_share is {share:g}, expected 0 to 1; correct it")
    if share and kind not in ("class", "multilabel"):
        raise ConfigError(
            f"gold_share is {share:g}, but labels are of kind '{kind}', which no answer meets "
            "exactly; leave it out: consensus.numbers finds biased annotators by the others"
        )
    if share and not (has_test_labels or (pool.vocabulary is not None and pool.num_test_rows)):
        raise ConfigError(
            f"gold_share is {share:g}, but no label of the test split is known to ask for; give "
            "test_labels, or leave it out"
        )


def over_limit(progress: Progress, limit_minor: int | None) -> str | None:
    """Gives why the next batch is not ordered: it would go beyond what may be spent; or None."""
    held = progress.amount_minor
    if limit_minor is None or held + progress.next_amount_minor <= limit_minor:
        return None
    return (
        f"the labels cost {held} minor units, with those on order, and the next batch "
        f"{progress.next_amount_minor}: more than max_amount_minor={limit_minor}"
    )


def check_labeler(pool: Pool, labeler: Labeler) -> None:
    """Refuses a labeler that could not be sent the rows of this pool, before any is ordered.

    Raises:
        ConfigError: the labeler says so.
    """
    check = getattr(labeler, "check", None)
    if check is not None:
        check(pool.schema)


def check_test_order(stopping: StoppingRule, num_rows: int, price_minor: int) -> None:
    """Refuses an order of test labels that a rule would not allow as a batch.

    Raises:
        ConfigError: a limit of money is below its price.
    """
    amount = num_rows * price_minor
    reason = stopping.stop(Progress(0, 0, 0, 0.0, num_rows, (), 0, amount))
    if reason is not None:
        raise ConfigError(
            f"test_budget={num_rows} costs {amount} minor units by itself, and the stopping rule "
            f"says: {reason}; lower test_budget or raise the limit"
        )


def rehearse(
    engine: Engine, strategy: Strategy | None, trainer: Trainer, vocabulary: Vocabulary, keys: Keys
) -> None:
    """Tries, before the first order, all that strategy and test will ask of a trained model, so
    that no label is bought for a run that cannot use it. `strategy` is None where none will score.

    Raises:
        ConfigError, NeedsError: the model cannot give it, as built or as configured.
    """
    needs = {"preds" if vocabulary.kind == "number" else "probs"}
    if strategy is not None:
        asked = (*strategy.needs_of_scorer, *strategy.selector.needs)
        needs |= {source_of(name) for name in asked} & set(OUTPUTS)
    _rehearse(engine, needs, trainer, vocabulary, keys)


def rehearse_proxy(
    engine: Engine, proxy: Proxy, strategy: Strategy, vocabulary: Vocabulary, keys: Keys
) -> None:
    """Tries what the proxy's pass will ask of its model; errors as `rehearse`."""
    needs = {source_of(name) for name in proxy.scorer_for(strategy.scorer).needs} & set(OUTPUTS)
    if needs:
        _rehearse(engine, needs, proxy.trainer, vocabulary, keys, by_proxy=True)


def check_proxy(
    pool: Pool, proxy: Proxy | None, strategy: Strategy, budget: int, vocabulary: Vocabulary
) -> None:
    """Refuses a proxy that cannot stand before the strategy.

    Raises:
        ConfigError: it lets through fewer rows than are to be picked, nothing says what it scores
            by, the strategy leaves out rows itself, or its model does not fit the pool.
    """
    if proxy is None:
        return
    least = max(budget, strategy.num_candidates or 0)
    if proxy.num_rows < least:
        raise ConfigError(
            f"proxy.num_rows is {proxy.num_rows}, below the {least} rows that the strategy asks "
            "for (budget, or strategy.num_candidates); raise it"
        )
    if strategy.restriction is not None:
        raise ConfigError(
            f"the strategy leaves out rows itself ({type(strategy.restriction).__name__}), and a "
            "proxy would too; take another strategy, or proxy=null"
        )
    proxy.scorer_for(strategy.scorer)
    check_columns(pool, proxy.predictor)
    check = getattr(proxy.trainer, "check", None)
    if check is not None:
        check(vocabulary)


def _rehearse(
    engine: Engine,
    needs: set[str],
    trainer: Trainer,
    vocabulary: Vocabulary,
    keys: Keys,
    by_proxy: bool = False,
) -> None:
    num_members = getattr(trainer, "num_members", None)
    if num_members is None:  # a trainer of the user's own: only its checkpoints say
        needs = needs - {"draws"}
        num_members = 1
    asked = tuple(sorted(needs))
    engine.rehearse(Rehearsal(asked, vocabulary, num_members, keys, by_proxy))
