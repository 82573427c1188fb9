"""What can go wrong, in a few kinds.

Every message says what was found, what was expected, where, and what to do.
"""


class RayalError(Exception):
    """Any failure that rayal explains in one line; the command prints it without a traceback."""


class ConfigError(RayalError):
    """A configuration that cannot be run: an unknown or changed key, parts that do not fit."""


class PoolError(RayalError):
    """A source or a pool that cannot be read, or that is not what its manifest says."""


class NeedsError(RayalError):
    """A scorer or selector asks for an output that the predictor does not give."""


class ScoringError(RayalError):
    """A shard that could not be scored: non-finite scores, undecodable rows, a lost worker."""


class TrainingError(RayalError):
    """A training that could not start or end."""


class LabelError(RayalError):
    """An order or an answer of a labeler that cannot be accepted."""


class InDoubt(LabelError):
    """A chunk that may or may not have reached its vendor: the call was cut off on its way."""


class LedgerError(RayalError):
    """A ledger that another process holds, of another run, or at odds with what is asked of it."""


class PlaceError(RayalError):
    """A store or a folder that cannot be reached, read or written: credentials, bucket, network."""
