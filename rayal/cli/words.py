"""The words after a command, read in one way by all of them."""

from __future__ import annotations

import argparse
from typing import NoReturn

from rayal.cli.explain import tell


class Parser(argparse.ArgumentParser):
    """argparse with an error of one line, like every other; the exit code stays argparse's 2."""

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, and ends the command."""
        tell(f"{self.prog}: {message}; `{self.prog} --help` says what it takes")
        raise SystemExit(2)
