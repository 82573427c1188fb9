"""What a run refuses before it starts: parts that do not fit the pool, or one another."""

from __future__ import annotations

from rayal import metrics
from rayal.errors import ConfigError
from rayal.pool import Pool
from rayal.strategy import Strategy
from rayal.types import OUTPUTS, Predictor, StoppingRule, Trainer, Vocabulary


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
            "'vocabulary={_target_: rayal.types.Vocabulary, kind: class, classes: [cat, dog]}'"
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
    if budget > pool.num_rows:
        raise ConfigError(f"budget={budget} is more than the pool's {pool.num_rows} rows; lower it")


def check_strategies(pool: Pool, strategy: Strategy, cold_start: Strategy, budget: int) -> None:
    """Refuses needs that nothing can meet.

    Raises:
        ConfigError: the cold start needs a model, or a need is neither output nor column.
    """
    for part in (strategy, cold_start):
        part.keep(budget)
    first = (*cold_start.needs_of_scorer, *cold_start.selector.needs)
    wants_model = [name for name in first if name in OUTPUTS]
    if wants_model:
        raise ConfigError(
            f"cold_start needs {', '.join(wants_model)}, but round 0 has no model; use one "
            "that needs none, such as strategy@cold_start=random"
        )
    for name in (*first, *strategy.needs_of_scorer, *strategy.selector.needs):
        if name not in OUTPUTS and name not in pool.schema.names:
            raise ConfigError(
                f"'{name}' is neither an output ({', '.join(OUTPUTS)}) nor a column of the "
                f"pool ({', '.join(pool.schema.names)}); name one of them in the strategy"
            )


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
        own = any(pool.test_labels(shard) is not None for shard in pool.test_shards[:1])
        check(own or has_test_labels)
