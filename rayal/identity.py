"""What a run's answers depend on: which keys may change when it goes on, and what names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayal.engine.scoring import pass_id

# Cannot change an answer, so they may differ when a run goes on. Everything else may not.
MAY_CHANGE = (
    "engine.",
    "poll_s",
    "poll_for_s",
    "doorbell_port",
    "max_amount_minor",
    "deadline_s",  # when a round goes on: like the vendor's pace, no part of what is asked for
    "least_share",
    "report.",
    "run_dir",
    "pool.",  # what it holds is a fact of its own, and how it was made is compared when it opens
    "source",
    "test_labels",  # where the file lies; what it holds is a fact of its own
    "ledger_url",
    "begin_from",
    "plan",  # whether a run says first what it will cost
    "rescoring.",  # where its bound is rigorous; where it is not, a fact of its own says so
)
# Patterns of numbers that may go up; the second kind also inside `stopping.rules`.
MAY_GROW = (
    "num_rounds",
    "max_rejected_share",
    "stopping.*num_labels",
    "stopping.*amount_minor",
    "stopping.*hours",
)
# Neither may change, but where a run ends, and in which folders a labeler's batches and answers
# lie, say nothing of what it asks for.
_NOT_IN_NAME = ("pool", "stopping")
_PLACES = ("outbox", "inbox")


def name_of(config: Mapping[str, Any]) -> str:
    """Gives the name of what a run asks for: equal wherever the run lies, so that orders have the
    same keys and digests can be compared. Two runs may share it; a ledger tells them apart."""
    free = {key.split(".")[0] for key in (*MAY_CHANGE, *MAY_GROW, *_NOT_IN_NAME)}
    kept = {key: value for key, value in config.items() if key not in free}
    if isinstance(labeler := kept.get("labeler"), Mapping):
        kept["labeler"] = {key: labeler[key] for key in labeler if key not in _PLACES}
    return pass_id(kept)
