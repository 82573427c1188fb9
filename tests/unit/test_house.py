"""How the house is kept: names, sizes, pins, the configuration tree and the wheel."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rayal.cli.config import SHARED

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
SOURCES = sorted((ROOT / "rayal").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Written by Hydra's instantiate itself, never an argument.
_HYDRA_KEYS = {"_target_", "_partial_", "_args_", "_recursive_", "_convert_"}


# ------------------------------------------------------------------------------------------ conf/


def _resolve(target: str) -> Any:
    """Gives the object of a dotted path, where its last parts may be attributes of a class."""
    parts = target.split(".")
    for cut in range(len(parts), 0, -1):
        name = ".".join(parts[:cut])
        try:
            found: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
                continue
            raise
        return functools.reduce(getattr, parts[cut:], found)
    raise ModuleNotFoundError(f"no module of {target!r} can be imported")


def _nodes(tree: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives every mapping with a `_target_`, and where it stands."""
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield where, tree
        for key, value in tree.items():
            yield from _nodes(value, f"{where}.{key}")
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            yield from _nodes(value, f"{where}[{place}]")


def _problems(
    tree: Any, where: str, no_arguments: frozenset[str] = frozenset(), is_whole: bool = True
) -> list[str]:
    """Gives what does not bind in a configuration, a sentence each.

    `no_arguments` are top-level keys that the top-level node does not take; a tree that is not
    whole gets the arguments that are missing from other files.
    """
    found: list[str] = []
    for place, node in _nodes(tree, where):
        target = node["_target_"]
        if "${" in target:
            continue
        try:
            called = _resolve(target)
        except (ImportError, AttributeError) as error:
            found.append(f"{place}: {target} is not there ({error})")
            continue
        if not callable(called):
            found.append(f"{place}: {target} cannot be called")
            continue
        left_out = no_arguments if place == where else frozenset()
        given = [key for key in node if key not in _HYDRA_KEYS and key not in left_out]
        signature = inspect.signature(called)
        later = node.get("_partial_") is True or not is_whole
        try:
            (signature.bind_partial if later else signature.bind)(
                *node.get("_args_", []), **dict.fromkeys(given)
            )
        except TypeError as error:
            takes = ", ".join(signature.parameters)
            found.append(f"{place}: {target} does not bind: {error} (it takes: {takes})")
    return found


def _conf_files() -> list[Path]:
    return sorted(CONF.rglob("*.yaml"))


def _choices() -> list[str]:
    """Gives one override for every file of every group."""
    return [
        f"{path.parent.relative_to(CONF)}={path.stem}"
        for path in _conf_files()
        if path.parent != CONF
    ]


def test_there_is_a_configuration() -> None:
    assert (CONF / "config.yaml").is_file()
    assert {"strategy=margin", "engine=ray", "experiment=embeddings"} <= set(_choices())


@pytest.mark.parametrize("path", _conf_files(), ids=lambda path: str(path.relative_to(CONF)))
def test_every_node_binds_to_its_constructor(path: Path) -> None:
    where = path.relative_to(CONF)
    tree = yaml.safe_load(path.read_text()) or {}
    is_part = len(where.parts) > 1 and where.parts[0] != "experiment"
    no_arguments = frozenset({"defaults"} if is_part else {"defaults", "hydra", *SHARED})
    assert _problems(tree, str(where), no_arguments, is_whole=is_part) == []


@pytest.mark.parametrize("choice", _choices())
def test_every_choice_composes_into_a_tree_that_binds(choice: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        tree = OmegaConf.to_container(compose("config", overrides=[choice]), resolve=False)
    assert _problems(tree, "config", frozenset(SHARED)) == []


class _Part:
    def __init__(self, width: int, depth: int = 1) -> None: ...


class _Open:
    def __init__(self, **options: Any) -> None: ...


@pytest.mark.parametrize(
    ("tree", "problem"),
    [
        ({"_target_": "PART", "width": 1}, None),
        ({"_target_": "PART", "width": "${other.width}", "depth": 2}, None),
        ({"_target_": "PART", "_partial_": True, "depth": 2}, None),
        ({"_target_": "PART", "_args_": [1]}, None),
        ({"_target_": "OPEN", "anything": 1}, None),
        ({"_target_": "PART", "width": 1, "_convert_": "all", "_recursive_": False}, None),
        ({"_target_": "PART"}, "missing a required argument: 'width'"),
        ({"_target_": "PART", "width": 1, "dept": 2}, "unexpected keyword argument 'dept'"),
        ({"_target_": "PART", "_partial_": True, "dept": 2}, "unexpected keyword argument 'dept'"),
        ({"_target_": "OPEN", "inner": [{"_target_": "PART"}]}, r"file.inner\[0\]: .* missing"),
        ({"plain": {"inner": {"_target_": "PART"}}}, "file.plain.inner: .* missing"),
        ({"_target_": "rayal.nowhere.Class"}, "is not there"),
        ({"_target_": "rayal.types.Nobody"}, "is not there"),
        ({"_target_": "rayal.types.OUTPUTS"}, "cannot be called"),
    ],
)
def test_the_walk_finds_what_does_not_bind(tree: dict[str, Any], problem: str | None) -> None:
    def named(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: named(value) for key, value in node.items()}
        if isinstance(node, list):
            return [named(value) for value in node]
        return {"PART": f"{__name__}._Part", "OPEN": f"{__name__}._Open"}.get(node, node)

    found = _problems(named(tree), "file")
    if problem is None:
        assert found == []
    else:
        assert len(found) == 1
        assert re.search(problem, found[0])


# ---------------------------------------------------------------------------------- names and sizes


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_rooms_of_a_readable_size(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400, f"{path.name} asks for a name for its half"
    assert not {
        "utils",
        "util",
        "helpers",
        "helper",
        "common",
        "manager",
        "handler",
        "processor",
    } & {
        *path.stem.split("_"),
        *(part for folder in path.relative_to(ROOT).parts[:-1] for part in folder.split("_")),
    }


def test_every_package_folder_says_what_it_is() -> None:
    for folder in {path.parent for path in SOURCES}:
        text = (folder / "__init__.py").read_text()
        assert text.startswith('"""'), folder


def test_importing_rayal_is_cheap() -> None:
    program = (
        "import sys, rayal, rayal.types, rayal.errors, rayal.keys, rayal.storage, rayal.progress\n"
        "heavy = {'ray', 'torch', 'faiss', 'hydra', 'omegaconf', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("rayal.report", ("ray", "torch", "faiss", "hydra")),
        ("rayal.pool", ("ray", "torch", "faiss", "hydra")),
        ("rayal.ledger", ("ray", "torch", "faiss", "hydra")),
        ("rayal.labelers", ("ray", "torch", "faiss", "hydra")),
        ("rayal.scorers", ("ray", "faiss", "hydra")),
        ("rayal.selectors", ("ray", "faiss", "hydra")),
        ("rayal.cli.main", ("ray", "torch", "faiss", "hydra")),
    ],
)
def test_rooms_open_without_heavy_doors(module: str, never: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(sorted(set({never!r}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_changelog_has_a_place_for_what_comes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[Unreleased\]$", text, re.MULTILINE)


def test_the_licence_is_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_versions_agree() -> None:
    import rayal

    assert rayal.__version__ == PROJECT["version"]


# ------------------------------------------------------------------------------------------- pins


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [line for line in lines if line and not line.startswith("#")]
    for line in found:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), f"not a plain pin: {line}"
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in found)}


def test_every_requirement_is_pinned_to_what_it_allows() -> None:
    pins, extras = _pins(), PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["dev"], *extras["recipes"]]:
        requirement = Requirement(text)
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pin), f"{text} does not allow the pin {pin}"


def test_pins_come_in_order_and_once() -> None:
    names = [
        canonicalize_name(line.split("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert names == sorted(set(names))


# ------------------------------------------------------------------------------------------ wheel


def test_the_wheel_holds_conf_and_no_path_of_this_machine(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for path in _conf_files():
            assert f"rayal/conf/{path.relative_to(CONF)}" in names
        for path in SOURCES:
            assert str(path.relative_to(ROOT)) in names
        assert "rayal/report/page.html.j2" in names
        assert not [name for name in names if name.startswith(("tests/", "conf/"))]
        folder = str(ROOT).encode()
        assert [name for name in names if folder in archive.read(name)] == []
        (entry,) = (name for name in names if name.endswith("entry_points.txt"))
        assert b"rayal = rayal.cli.main:main" in archive.read(entry)
