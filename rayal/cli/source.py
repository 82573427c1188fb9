"""Where a configuration is read from: rayal's own folder, and one of the user's beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra

from rayal.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """What Hydra's --config-path, --config-name and --config-dir say; paths are absolute."""

    path: str
    name: str = "config"
    added: str | None = None  # its groups are found beside those of `path`

    @contextlib.contextmanager
    def opened(self) -> Iterator[ConfigLoader]:
        """Lets `hydra.compose` read from here: as `hydra.main` will, with the added folder too.

        Raises:
            ConfigError: a folder is not there.
        """
        for flag, folder in (("--config-path", self.path), ("--config-dir", self.added)):
            if folder is not None and not Path(folder).is_dir():
                raise ConfigError(
                    f"{flag} is {folder}, and there is no such folder; give the one that holds "
                    "the groups (strategy/, model/, ...) with your files"
                )
        version.setbase("1.3")
        search = create_config_search_path(self.path)
        if self.added is not None:
            where = SearchPathQuery(provider="schema")
            search.prepend("command-line", f"file://{self.added}", where)
        theirs = GlobalHydra.instance().hydra  # of a program of the user's that calls rayal
        GlobalHydra.instance().clear()
        Hydra.create_main_hydra2("rayal", search)
        try:
            yield GlobalHydra.instance().config_loader()
        finally:
            GlobalHydra.instance().clear()
            GlobalHydra.instance().hydra = theirs
