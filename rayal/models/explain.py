"""What a module, a transform or a library raised, in one line."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from rayal.errors import ConfigError, RayalError

_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def cause_of(error: BaseException) -> str:
    """Gives an exception's type, the first line of what it says, and where the user's code was."""
    text = str(error).strip()
    said = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*_LIBRARIES, "<"))]
    return said + (f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else "")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory, on a CPU or a GPU."""
    # What torch raises on a CPU is a RuntimeError like any other, but for its words.
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        one in str(error) for one in words
    )


def is_own(part: object) -> bool:
    """Whether a part is the user's, so that what it raises is theirs to mend; a mistake of rayal's
    keeps its traceback."""
    return type(part).__module__.split(".")[0] != "rayal"


@contextlib.contextmanager
def explained(what: str, remedy: str) -> Iterator[None]:
    """Runs code that is not rayal's.

    Raises:
        ConfigError: it raised anything but a RayalError or a lack of memory, which pass.
    """
    try:
        yield
    except RayalError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"{what}: {cause_of(error)}; {remedy}") from error
