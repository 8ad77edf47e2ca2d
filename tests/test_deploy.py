"""What deploys the project: cluster files, the image, the upload of a job, the commands of docs/cluster.md."""

from __future__ import annotations

import jobs  # noqa: F401 # isort: skip # before ray, which reads the environment that it sets

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import click
import jsonschema
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts
from support.files import Command

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
tomllib = pytest.importorskip("tomllib", reason="the images have Python 3.11")
LAUNCHED = ("cluster.yaml", "deploy/gcp.yaml")
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_OPERATORS = {"&&", "||", ";", "|"}


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


# --- ray up ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=LAUNCHED)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return load(request.param)


def workers(config: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in config["available_node_types"].items() if name != config["head_node_type"]}


def test_ray_accepts_the_cluster_files(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize("place", [(), ("docker",), ("auth",), ("available_node_types", "gpu_spot")])
def test_ray_refuses_a_misspelt_setting(config: dict[str, Any], place: tuple[str, ...]) -> None:
    wrong = copy.deepcopy(config)
    section = wrong
    for key in place:
        section = section[key]
    section["idle_timeout_minuets"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuets"):
        validate_config(prepare_config(wrong))


def test_all_cluster_files_say_the_same_versions() -> None:
    version = pins("constraints.txt")["ray"]
    assert version == ray.__version__
    for name in LAUNCHED:
        docker = load(name)["docker"]
        assert docker["head_image"] == f"rayproject/ray:{version}-py311-cpu"
        assert docker["worker_image"] == f"rayproject/ray:{version}-py311-gpu"
    assert f"FROM rayproject/ray:{version}-py311-${{PLATFORM}}\n" in (DEPLOY / "Dockerfile").read_text()
    assert {spec["rayVersion"] for spec in kuberay_specs().values()} == {version}


def test_the_cluster_scales_to_zero_and_the_head_has_no_gpu(config: dict[str, Any]) -> None:
    kinds = {"m7i.xlarge": {"CPU": 4}, "n2-standard-4": {"CPU": 4}}  # as the clouds sell them
    kinds |= {"g6.xlarge": {"CPU": 4, "GPU": 1}, "g2-standard-4": {"CPU": 4, "GPU": 1}}
    for one in config["available_node_types"].values():
        node = one["node_config"]
        assert one["resources"] == kinds[node.get("InstanceType") or node["machineType"]]
    assert "GPU" not in config["available_node_types"]["head"]["resources"]
    assert {one["min_workers"] for one in workers(config).values()} == {0}
    assert {one["max_workers"] for one in workers(config).values()} == {config["max_workers"]}
    assert config["idle_timeout_minutes"] == 5


def test_spot_nodes_are_tried_before_on_demand_ones(config: dict[str, Any]) -> None:
    spot, on_demand = (config["available_node_types"][name] for name in ("gpu_spot", "gpu_on_demand"))
    assert spot["priority"] > on_demand.get("priority", 0)
    assert "spot" in json.dumps(spot["node_config"]).lower()
    assert "spot" not in json.dumps(on_demand["node_config"]).lower()


def test_cluster_files_open_nothing_but_ssh(config: dict[str, Any]) -> None:
    rules = config["provider"].get("security_group", {}).get("IpPermissions", [])  # Ray itself adds ssh
    assert all(rule["FromPort"] == rule["ToPort"] == 22 for rule in rules)
    started = start_options(config["head_start_ray_commands"][-1])
    assert started["dashboard_host"] == "127.0.0.1"
    assert "0.0.0.0" not in str(config)  # noqa: S104


def start_options(line: str) -> dict[str, Any]:
    """Parse `…; ray start …` as Ray does; an unknown flag raises."""
    words = shlex.split(line.split("ray start")[1])
    return scripts.start.make_context("ray start", words).params


def test_ray_knows_the_flags_that_nodes_start_with(config: dict[str, Any]) -> None:
    head = start_options(config["head_start_ray_commands"][-1])
    worker = start_options(config["worker_start_ray_commands"][-1])
    assert head["head"]
    assert head["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert worker["address"] == f"$RAY_HEAD_IP:{head['port']}"
    with pytest.raises(click.NoSuchOption):
        start_options("ray start --head --dashbord-host=127.0.0.1")


def test_every_node_has_the_token_and_wants_it(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"  # noqa: S105 # a path
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]


def test_every_node_installs_the_pinned_versions(config: dict[str, Any]) -> None:
    mounted = {remote: local for remote, local in config["file_mounts"].items() if "auth_token" not in remote}
    assert all((ROOT / local).is_file() for local in mounted.values())
    assert mounted["/home/ray/promoter/constraints.txt"] == "constraints.txt"
    setup = "\n".join(config["setup_commands"])
    named = {word.replace("~", "/home/ray") for word in re.findall(r"~/promoter/\S+", setup)}
    assert named == set(mounted)
    assert "-c ~/promoter/constraints.txt" in setup
    assert config["head_setup_commands"] == []  # Ray's defaults would add packages of any version
    assert "worker_setup_commands" not in config


def test_the_setup_of_nodes_installs_the_dependencies_of_pyproject(tmp_path: Path) -> None:
    """The very command of the nodes, without pip: their folder, and their Python's standard library alone."""
    command = [sys.executable, "-I", str(DEPLOY / "requirements.py"), str(ROOT / "pyproject.toml"), "s3"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split("\n")
    wanted = _PROJECT["dependencies"] + _PROJECT["optional-dependencies"]["s3"]
    assert sorted(filter(None, printed)) == sorted(wanted)


@pytest.mark.parametrize("name", ["constraints.txt", "deploy/constraints-cloud.txt"])
def test_pinned_versions_are_within_the_ranges_of_pyproject(name: str) -> None:
    extras = _PROJECT["optional-dependencies"]
    pinned = pins(name)
    ranges = [Requirement(line) for line in _PROJECT["dependencies"] + extras["s3"] + extras["gcs"]]
    checked = [one for one in ranges if one.name in pinned and one.specifier.contains(pinned[one.name])]
    assert {one.name for one in checked} == {one.name for one in ranges if one.name in pinned} != set()


def test_the_two_constraints_files_do_not_contradict() -> None:
    assert not pins("constraints.txt").keys() & pins("deploy/constraints-cloud.txt").keys()


def test_the_aws_roles_allow_no_more_than_needed() -> None:
    config = load("cluster.yaml")
    policies = {path.stem: json.loads(path.read_text()) for path in (DEPLOY / "aws").glob("*.json")}
    roles = {one["node_config"]["IamInstanceProfile"]["Name"] for one in config["available_node_types"].values()}
    assert roles == {"promoter-head", "promoter-nodes"}
    allowed = {name: statements(policy) for name, policy in policies.items()}
    assert not [action for one in allowed.values() for action in one if "*" in action]
    assert set(allowed["storage"].values()) == {"arn:aws:s3:::MY-BUCKET", "arn:aws:s3:::MY-BUCKET/*"}
    assert all(action.startswith("s3:") for action in allowed["storage"])
    assert allowed["head"]["iam:PassRole"].endswith("role/promoter-nodes")
    tags = json.dumps(policies["head"])
    assert f'"ec2:ResourceTag/ray-cluster-name": "{config["cluster_name"]}"' in tags


def statements(policy: dict[str, Any]) -> dict[str, str]:
    """Return action → resource."""
    return {
        action: one.get("Resource", "")
        for one in policy["Statement"]
        for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    }


# --- KubeRay -----------------------------------------------------------------------------------------------------

# The fields of ray.io/v1 that our files use, from KubeRay's API reference (1.6); a pod's are Kubernetes' own.
_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}


def fields(required: str, **properties: Any) -> dict[str, Any]:
    closed = {"type": "object", "additionalProperties": False}
    return {**closed, "properties": properties, "required": required.split()}


_AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
_RESOURCES = fields("requests limits", requests=_AMOUNTS, limits=_AMOUNTS)
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_CONTAINER = fields(
    "name image resources securityContext",
    name=_TEXT,
    image=_TEXT,
    resources=_RESOURCES,
    securityContext=fields(
        "allowPrivilegeEscalation capabilities",
        allowPrivilegeEscalation={"const": False},
        capabilities=fields("drop", drop={"const": ["ALL"]}),
    ),
    ports={"type": "array", "items": fields("name containerPort", name=_TEXT, containerPort=_WHOLE)},
)
_POD = fields(
    "spec",
    spec=fields(
        "serviceAccountName securityContext containers",
        serviceAccountName={"const": "promoter"},
        securityContext=fields("runAsNonRoot", runAsNonRoot={"const": True}, runAsUser=_WHOLE, runAsGroup=_WHOLE),
        tolerations={
            "type": "array",
            "items": fields("key operator effect", key=_TEXT, operator=_TEXT, effect={"enum": ["NoSchedule"]}),
        },
        containers={"type": "array", "items": _CONTAINER, "minItems": 1},
    ),
)
_CLUSTER_SPEC = fields(
    "rayVersion authOptions enableInTreeAutoscaling headGroupSpec workerGroupSpecs",
    rayVersion=_TEXT,
    authOptions=fields("mode", mode={"const": "token"}),
    enableInTreeAutoscaling={"const": True},
    autoscalerOptions=fields("", idleTimeoutSeconds=_WHOLE, resources=_RESOURCES),
    headGroupSpec=fields(
        "rayStartParams template", serviceType={"const": "ClusterIP"}, rayStartParams=_TEXTS, template=_POD
    ),
    workerGroupSpecs={
        "type": "array",
        "items": fields(
            "groupName replicas minReplicas maxReplicas rayStartParams template",
            groupName=_TEXT,
            replicas=_WHOLE,
            minReplicas=_WHOLE,
            maxReplicas=_WHOLE,
            rayStartParams=_TEXTS,
            template=_POD,
        ),
    },
)
_JOB_SPEC = fields(
    "entrypoint rayClusterSpec",
    entrypoint=_TEXT,
    shutdownAfterJobFinishes=_FLAG,
    ttlSecondsAfterFinished=_WHOLE,
    backoffLimit=_WHOLE,
    rayClusterSpec=_CLUSTER_SPEC,
)


def kuberay(kind: str) -> dict[str, Any]:
    name = {"RayCluster": "kuberay-cluster.yaml", "RayJob": "kuberay-job.yaml"}.get(kind, "kuberay-cluster.yaml")
    documents = yaml.safe_load_all((DEPLOY / name).read_text())
    return next(one for one in documents if one["kind"] == kind)


def kuberay_specs() -> dict[str, dict[str, Any]]:
    return {"cluster": kuberay("RayCluster")["spec"], "job": kuberay("RayJob")["spec"]["rayClusterSpec"]}


@pytest.mark.parametrize(("kind", "spec"), [("RayCluster", _CLUSTER_SPEC), ("RayJob", _JOB_SPEC)])
def test_kuberay_files_use_its_fields(kind: str, spec: dict[str, Any]) -> None:
    document = kuberay(kind)
    schema = fields(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=fields("name", name=_TEXT),
        spec=spec,
    )
    jsonschema.validate(document, schema)
    document["spec"]["authOption"] = {"mode": "token"}
    with pytest.raises(jsonschema.ValidationError, match="authOption"):
        jsonschema.validate(document, schema)


def test_kuberay_pods_hold_what_they_ask_for() -> None:
    spec = kuberay_specs()["cluster"]
    assert kuberay_specs()["job"] == spec
    (group,) = spec["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
    (worker,) = group["template"]["spec"]["containers"]
    assert head["image"] == worker["image"] == f"MY-REGISTRY/promoter:{_PROJECT['version']}"
    assert head["resources"]["requests"] == head["resources"]["limits"]
    assert worker["resources"]["requests"] == worker["resources"]["limits"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert [one["key"] for one in group["template"]["spec"]["tolerations"]] == ["nvidia.com/gpu"]
    assert kuberay("ServiceAccount")["metadata"]["name"] == "promoter"


# --- the image ---------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, list[str]]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.split()) for name, rest in lines]


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored() -> None:
    copied = [word for name, rest in instructions() if name == "COPY" for word in rest[1:-1]]
    assert all((ROOT / name).exists() for name in copied)
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules == ["*", *(f"!{name}" for name in copied), "**/__pycache__"]
    assert set(wheel_sources()) <= set(copied)


def wheel_sources() -> list[str]:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = whole["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return [*packages, whole["project"]["readme"], *whole["project"]["license-files"]]


def test_the_image_is_pinned_unprivileged_and_without_secrets() -> None:
    known = {"ARG", "FROM", "USER", "WORKDIR", "COPY", "RUN", "ENV"}
    assert {name for name, _ in instructions()} <= known
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users[-1] == ["ray"]
    whole = " ".join(word for _, rest in instructions() for word in rest)
    for argument in (rest[0].split("=")[0] for name, rest in instructions() if name == "ARG"):
        assert f"${argument}" in whole or f"${{{argument}" in whole
    assert "-c constraints.txt -c constraints-cloud.txt -r /tmp/requirements.txt" in whole
    assert not re.search(r"secret|password|AUTH_TOKEN|ACCESS_KEY", whole, re.IGNORECASE)


# --- what a job uploads ------------------------------------------------------------------------------------------

_LITTER = (
    ".git/objects/pack/pack.pack",
    ".venv/lib/python3.11/site-packages/torch/lib.so",
    "data/promoters.parquet",
    "genome.fa",
    "demo/run/model/model.safetensors",
    "ism/scores/part-00000.parquet",
    "predictions.parquet",
    "run/history.csv",
    "jobs/__pycache__/train.cpython-311.pyc",
    "promoter/ism/__pycache__/store.cpython-311.pyc",
    "promoter/left.parquet",
)
_UPLOAD_LIMIT = 1 << 21  # bytes; the code is some 60% of it


@pytest.fixture
def littered(tmp_path: Path) -> Path:
    """A clone with results and an environment lying about, and a space.yaml to be read by a job."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for entry in ROOT.iterdir():
        if entry.is_file() and entry.name != ".git":
            shutil.copy(entry, clone)
    for name in ("jobs", "promoter", "benchmarks", "configs", "tests", "docs", "deploy"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in _LITTER:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(bytes(200_000))
    (clone / "space.yaml").write_text("model.dropout: {choices: [0.1]}\n")
    return clone


@pytest.mark.parametrize("gitignore", [True, False], ids=["gitignore", "RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1"])
def test_a_job_uploads_the_code_and_nothing_else(littered: Path, tmp_path: Path, gitignore: bool) -> None:
    package = tmp_path / "package.zip"
    create_package(str(littered), package, include_gitignore=gitignore, excludes=[])
    with ZipFile(package) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "unpacked")
    code = {
        str(path.relative_to(ROOT)) for folder in ("jobs", "promoter") for path in (ROOT / folder).rglob("*.py")
    }
    assert names >= code | {"space.yaml", "benchmarks/yeast_space.yaml", "configs/small-genome.yaml"}
    assert {name.split("/")[0] for name in names} == {"jobs", "promoter", "benchmarks", "configs", "space.yaml"}
    assert not names & set(_LITTER)
    assert package.stat().st_size < _UPLOAD_LIMIT
    parsed = [sys.executable, "-m", "jobs.tune", "--data", "d", "--out", "o", "--space", "space.yaml"]
    run = subprocess.run([*parsed, "--print_config"], cwd=tmp_path / "unpacked", capture_output=True, check=False)
    assert run.returncode == 0, run.stderr


# --- the page ----------------------------------------------------------------------------------------------------


def told() -> list[list[str]]:
    """The commands in the code of docs/cluster.md and of the RayJob, split as a shell does."""
    page = (ROOT / "docs" / "cluster.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [[]]
    for line in [*lines, kuberay("RayJob")["spec"]["entrypoint"]]:
        for word in shlex.split(line, comments=True):
            commands.append([]) if word in _OPERATORS else commands[-1].append(word)
        commands.append([])
    return [one for one in commands if one]


def test_the_cluster_page_tells_commands_that_ray_knows() -> None:
    commands = [words[1:] for words in told() if words[0] == "ray"]
    assert {words[0] for words in commands} >= {
        "up",
        "down",
        "dashboard",
        "job",
        "get-auth-token",
        "exec",
        "monitor",
    }
    for words in commands:
        resolve(scripts.cli, words)
    with pytest.raises(click.NoSuchOption):
        resolve(scripts.cli, ["job", "submit", "--workdir", ".", "--", "python"])


def resolve(group: click.Command, words: list[str]) -> None:
    """Parse as the command line does, without running; a wrong command or flag raises."""
    context = group.make_context("ray", list(words))
    while isinstance(context.command, click.Group):
        _, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(command.name, rest, parent=context)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["prepare", "train", "tune", "ism"])
def test_the_cluster_page_tells_commands_that_the_jobs_know(job: str, command: Command) -> None:
    calls = [words[words.index(f"jobs.{job}") + 1 :] for words in told() if f"jobs.{job}" in words]
    assert calls
    for words in calls:
        given = dict(zip(words[::2], words[1::2], strict=True))
        given.pop("--config", None)  # a file in the bucket
        run = command(job, *(word for pair in given.items() for word in pair), "--print_config")
        assert run.returncode == 0, run.stderr
        printed = yaml.safe_load(run.stdout)
        assert {flag: str(printed[flag[2:]]).removesuffix(".0") for flag in given} == given


def test_the_cluster_page_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    named = set(re.findall(r"\b(?:deploy|tests)/[\w./-]+\.\w+|\bcluster\.yaml\b", page))
    assert named >= {"deploy/gcp.yaml", "deploy/aws/head.json", "cluster.yaml"}
    assert all((ROOT / name).is_file() for name in named)
