"""Arguments of selectors that cannot mean anything, refused where a selector is made."""

from __future__ import annotations

from rayal.errors import ConfigError
from rayal.types import OUTPUTS

NO_FEATURES = ("sample_id", "source_id", "label", "pending")  # ids, and what labelled rows carry


def check_feature(selector: object, feature: object) -> None:
    """Refuses a feature that is no name, or the name of something that is no feature.

    Raises:
        ConfigError: it is one of these.
    """
    if not isinstance(feature, str) or not feature or feature in NO_FEATURES:
        raise ConfigError(
            f"{type(selector).__name__}.feature is {feature!r}, expected an output "
            f"({', '.join(OUTPUTS)}) or a column of features in the pool, and neither an id nor a "
            "label; name one, or leave it out for 'embeds'"
        )


def check_counts(selector: object, **counts: object) -> None:
    """Refuses counts that are no whole numbers of at least 1.

    Raises:
        ConfigError: one is not; the message names the first one.
    """
    for name, count in counts.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(
                f"{type(selector).__name__}.{name} is {count!r}, expected a whole number of at "
                "least 1; leave it out for the default"
            )


def check_precision(selector: object, precision: object) -> None:
    """Refuses a precision that there is not.

    Raises:
        ConfigError: it is neither 'integer', 'float' nor left out.
    """
    if precision not in (None, "integer", "float"):
        raise ConfigError(
            f"{type(selector).__name__}.precision is {precision!r}, expected 'integer', 'float' or "
            "nothing: integers where they are exact enough, else floats"
        )
