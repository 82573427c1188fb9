"""The files of cluster/: their schemas, and what they must agree on with each other and the pins.

No pod and no machine is started here: that a scheduler places them is not shown.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"
_HEAD_POD = ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec")
CRDS = Path(os.environ.get("RAYAL_KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay"))


def _load(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((CLUSTER / name).read_text())
    assert isinstance(loaded, dict)
    return loaded


def _ray_version() -> str:
    pins = (ROOT / "constraints.txt").read_text().split()
    return next(pin.removeprefix("ray==") for pin in pins if pin.startswith("ray=="))


# ------------------------------------------------------------------------------------- Kubernetes


def _closed(node: Any) -> Any:
    """Gives a CRD's schema as JSON Schema that refuses keys which the API server would prune."""
    if isinstance(node, list):
        return [_closed(part) for part in node]
    if not isinstance(node, dict):
        return node
    schema = {key: value for key, value in node.items() if key not in ("format", "description")}
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema.pop("anyOf", None)
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if isinstance(schema.get("properties"), dict):
        properties = schema["properties"]
        schema["properties"] = {name: _closed(part) for name, part in properties.items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
        if "required" in schema:
            # A field with a default is filled in before the check.
            schema["required"] = [
                name for name in schema["required"] if "default" not in properties.get(name, {})
            ]
    for key in ("items", "additionalProperties", "anyOf", "allOf", "oneOf"):
        if key in schema and isinstance(schema[key], dict | list):
            schema[key] = _closed(schema[key])
    return schema


@pytest.fixture(scope="module")
def rayjob_schema() -> jsonschema.Draft7Validator:
    path = CRDS / "ray.io_rayjobs.yaml"
    if not path.is_file():
        pytest.skip(f"no KubeRay CRDs in {CRDS}; RAYAL_KUBERAY_CRDS names their folder")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 2 MB: twelve times faster
    crd = yaml.load(path.read_text(), loader)
    version = next(one for one in crd["spec"]["versions"] if one["name"] == "v1")
    schema = _closed(version["schema"]["openAPIV3Schema"])
    # The API server adds what every object has.
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "labels": {"type": "object"}},
        "additionalProperties": False,
        "required": ["name"],
    }
    return jsonschema.Draft7Validator(schema)


@pytest.fixture
def rayjob() -> dict[str, Any]:
    return _load("rayjob.yaml")


def _pod_specs(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_rayjob_is_what_kuberay_takes(
    rayjob: dict[str, Any], rayjob_schema: jsonschema.Draft7Validator
) -> None:
    errors = [f"{error.json_path}: {error.message}" for error in rayjob_schema.iter_errors(rayjob)]
    assert errors == []


@pytest.mark.parametrize(
    ("where", "old", "new"),
    [
        (("spec",), "entrypoint", "entryPoint"),
        (("spec", "rayClusterSpec"), "networkPolicy", "networkPolicies"),
        (("spec", "rayClusterSpec", "authOptions"), "mode", "kind"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "maxReplicas", "maxReplica"),
        ((*_HEAD_POD, "containers", 0, "resources"), "limits", "limit"),
        ((*_HEAD_POD, "securityContext"), "runAsNonRoot", "runAsNonroot"),
    ],
)
def test_a_misspelt_key_is_caught(
    rayjob: dict[str, Any],
    rayjob_schema: jsonschema.Draft7Validator,
    where: tuple[Any, ...],
    old: str,
    new: str,
) -> None:
    wrong = copy.deepcopy(rayjob)  # the anchors of the file make shared parts
    node = wrong
    for step in where:
        node = node[step]
    node[new] = node.pop(old)
    assert [error for error in rayjob_schema.iter_errors(wrong) if new in error.message]


def test_a_wrong_value_is_caught(
    rayjob: dict[str, Any], rayjob_schema: jsonschema.Draft7Validator
) -> None:
    rayjob["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "tokens"
    assert not rayjob_schema.is_valid(rayjob)


def test_pods_run_without_privileges(rayjob: dict[str, Any]) -> None:
    for pod in _pod_specs(rayjob):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] != 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in container["securityContext"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_pods_get_what_they_ask_for_and_a_large_enough_shm(rayjob: dict[str, Any]) -> None:
    for pod in _pod_specs(rayjob):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            shm = volumes[mounted["/dev/shm"]]["emptyDir"]
            assert shm["medium"] == "Memory"
            memory_gib = float(container["resources"]["limits"]["memory"].removesuffix("Gi"))
            assert float(shm["sizeLimit"].removesuffix("Gi")) >= 0.3 * memory_gib
            assert volumes[mounted["/shared"]]["persistentVolumeClaim"]


def test_ray_is_closed_to_strangers(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["networkPolicy"]["mode"] in ("DenyAll", "DenyAllIngress")
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in cluster["headGroupSpec"]


def test_only_the_driver_has_keys(rayjob: dict[str, Any]) -> None:
    head, *workers = _pod_specs(rayjob)
    assert head["containers"][0]["envFrom"] == [{"secretRef": {"name": "rayal-driver"}}]
    for pod in workers:
        assert "secret" not in json.dumps(pod).lower()
    assert "runtimeEnvYAML" not in rayjob["spec"]


def test_the_head_takes_no_work_and_the_workers_hold_what_is_asked(rayjob: dict[str, Any]) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    wanted = dict(word.split("=", 1) for word in _rayjob_words(rayjob) if "=" in word)
    num_places = 0
    for group in cluster["workerGroupSpecs"]:
        num_cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        num_places += group["replicas"] * (num_cpus // int(wanted["engine.num_cpus"]))
    assert int(wanted["engine.num_workers"]) <= num_places


def _rayjob_words(rayjob: dict[str, Any]) -> list[str]:
    return shlex.split(rayjob["spec"]["entrypoint"])


def test_a_shell_changes_nothing_in_the_entrypoint(rayjob: dict[str, Any]) -> None:
    assert re.fullmatch(r"[\w .,/:=@+-]+", rayjob["spec"]["entrypoint"].strip())


# ----------------------------------------------------------------------------------------- ray up


@pytest.fixture(scope="module")
def ray_up_schema() -> jsonschema.Draft7Validator:
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "autoscaler" / "ray-schema.json"
    return jsonschema.Draft7Validator(json.loads(path.read_text()))


def test_the_ray_up_file_is_what_ray_takes(ray_up_schema: jsonschema.Draft7Validator) -> None:
    errors = [error.message for error in ray_up_schema.iter_errors(_load("ray-up.yaml"))]
    assert errors == []


@pytest.mark.parametrize(
    ("old", "new"),
    [("max_workers", "max_worker"), ("available_node_types", "node_types")],
)
def test_a_misspelt_ray_up_key_is_caught(
    ray_up_schema: jsonschema.Draft7Validator, old: str, new: str
) -> None:
    wrong = _load("ray-up.yaml")
    wrong[new] = wrong.pop(old)
    assert [error for error in ray_up_schema.iter_errors(wrong) if new in error.message]


def test_ray_up_nodes_are_closed_and_consistent() -> None:
    config = _load("ray-up.yaml")
    options = " ".join(config["docker"]["run_options"])
    assert "RAY_AUTH_MODE=token" in options
    assert "no-new-privileges" in options
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    head_start = " ".join(config["head_start_ray_commands"])
    assert "--num-cpus=0" in head_start
    assert "--dashboard-host=127.0.0.1" in head_start
    assert config["available_node_types"][config["head_node_type"]]["resources"]["CPU"] == 0
    scorers = [
        kind
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    ]
    assert sum(kind["max_workers"] for kind in scorers) == config["max_workers"]
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


def _ray_up_words() -> list[str]:
    comment = "\n".join(
        line.removeprefix("#").strip()
        for line in (CLUSTER / "ray-up.yaml").read_text().splitlines()
        if line.startswith("#")
    )
    found = re.search(r"ray exec \S+ '(.*?)'", comment, re.DOTALL)
    assert found is not None
    return shlex.split(found[1].replace("\\\n", " ").rsplit(";", 1)[1])


# ------------------------------------------------------------------------------------ consistency


def test_one_ray_everywhere(rayjob: dict[str, Any]) -> None:
    pinned = _ray_version()
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+)$", dockerfile, re.MULTILINE) == [
        f"rayproject/ray:{pinned}-py311${{VARIANT}}"
    ]
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    built = re.findall(r"-t (rayal:\S+) \.", dockerfile)[0]
    assert built.endswith(f"-ray{pinned}")
    images = {container["image"] for pod in _pod_specs(rayjob) for container in pod["containers"]}
    images.add(_load("ray-up.yaml")["docker"]["image"])
    assert images == {built}


def test_the_image_carries_the_version_of_the_package() -> None:
    import rayal

    assert f"rayal:{rayal.__version__}-ray" in (CLUSTER / "Dockerfile").read_text()


def test_the_image_is_not_root() -> None:
    users = re.findall(r"^USER (\S+)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert users
    assert re.fullmatch(r"[1-9]\d*:\d+", users[-1])


def test_no_place_phones_home(rayjob: dict[str, Any]) -> None:
    for pod in _pod_specs(rayjob):
        for container in pod["containers"]:
            assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
    assert "--env RAY_USAGE_STATS_ENABLED=0" in _load("ray-up.yaml")["docker"]["run_options"]
    assert "RAY_USAGE_STATS_ENABLED=0" in (CLUSTER / "Dockerfile").read_text()


def test_every_file_says_how_it_is_used() -> None:
    for path in CLUSTER.iterdir():
        head = path.read_text().splitlines()[:16]
        assert head[0].startswith("# "), path
        assert any(re.match(r"#   \S+ .*", line) for line in head), path


ENTRYPOINTS = [
    pytest.param(_rayjob_words(_load("rayjob.yaml")), id="rayjob"),
    pytest.param(_ray_up_words(), id="ray-up"),
]


@pytest.mark.parametrize("words", ENTRYPOINTS)
def test_a_run_on_a_cluster_can_be_resumed_elsewhere(words: list[str]) -> None:
    assert words[:2] == ["rayal", "run"]
    wanted = dict(word.split("=", 1) for word in words[2:])
    assert (wanted["engine"], wanted["engine.address"]) == ("ray", "auto")
    assert wanted["run_dir"].startswith("/shared/")
    assert wanted["pool.path"].startswith("/shared/")
    assert re.fullmatch(r"postgresql://\w+@[\w.-]+:\d+/\w+", wanted["ledger_url"])  # no password


@pytest.mark.parametrize("words", ENTRYPOINTS)
def test_the_words_of_a_run_compose(words: list[str]) -> None:
    from rayal.cli.config import check_overrides
    from rayal.errors import ConfigError

    check_overrides(words[2:])
    with pytest.raises(ConfigError):
        check_overrides([*words[2:], "engine.num_worker=1"])
