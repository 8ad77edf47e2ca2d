"""What deploys the project: cluster files of `ray up`, the image, the upload of a job."""

from __future__ import annotations

import jobs  # noqa: F401 # isort: skip # before ray, which reads the environment that it sets

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import boto3
import click
import jsonschema
import pytest
import ray
from moto import mock_aws
from packaging.requirements import Requirement
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.aws.config import _configure_security_group
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts
from support.deploy_files import DEPLOY, LAUNCHED, PROJECT, ROOT, kuberay_specs, launched, load, pins

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
        assert load(name)["docker"]["head_image"] == f"rayproject/ray:{version}-py311-cpu"
    bases = [rest[0] for name, rest in instructions() if name == "FROM"]
    assert set(bases) == {f"rayproject/ray:{version}-py311-${{PLATFORM}}"}
    assert {spec["rayVersion"] for spec in kuberay_specs().values()} == {version}


# CPUs, GB and GPUs as the clouds sell them
_MACHINES = {
    **{"m7i.xlarge": (4, 16, 0), "m7i.2xlarge": (8, 32, 0), "g6.xlarge": (4, 16, 1), "g6.12xlarge": (48, 192, 4)},
    **{"n2-standard-4": (4, 16, 0), "n2-standard-8": (8, 32, 0)},
    **{"g2-standard-4": (4, 16, 1), "g2-standard-48": (48, 192, 4)},
}


def test_the_cluster_scales_to_zero_and_the_head_has_no_gpu(config: dict[str, Any]) -> None:
    kinds = workers(config)
    assert {kind["min_workers"] for kind in kinds.values()} == {0}
    assert max(kind["max_workers"] for kind in kinds.values()) == config["max_workers"]
    assert config["idle_timeout_minutes"] == 5
    for kind in config["available_node_types"].values():
        cpus, gigabytes, gpus = _MACHINES[machine(kind)]
        offered = kind["resources"]
        assert offered["CPU"] == (cpus if gpus < 4 else cpus / 2)  # see test_four_gpu_workers_get_one_machine
        assert offered.get("GPU", 0) == gpus
        assert offered.get("memory", 0) <= 0.7 * gigabytes * 2**30  # 30% are the object store's
    assert "GPU" not in config["available_node_types"]["head"]["resources"]


def machine(kind: dict[str, Any]) -> str:
    return kind["node_config"].get("InstanceType") or kind["node_config"]["machineType"]


def test_spot_nodes_are_tried_before_on_demand_ones(config: dict[str, Any]) -> None:
    kinds = workers(config)
    assert set(kinds) == {
        f"{kind}_{market}" for kind in ("cpu", "gpu", "gpu4") for market in ("spot", "on_demand")
    }
    for name in ("cpu", "gpu", "gpu4"):
        spot, on_demand = kinds[f"{name}_spot"], kinds[f"{name}_on_demand"]
        assert spot["priority"] > on_demand.get("priority", 0)
        assert "spot" in json.dumps(spot["node_config"]).lower()
        assert "spot" not in json.dumps(on_demand["node_config"]).lower()
        same = ("resources", "docker", "max_workers")
        assert [spot.get(key) for key in same] == [on_demand.get(key) for key in same]
        assert machine(spot) == machine(on_demand)


# What jobs may reserve beside the GPU. Ray scores types of nodes by all of it, and by the type of the accelerator.
_BESIDE: list[dict[str, float]] = [
    {"CPU": 1},
    {"CPU": 4},
    {"CPU": 1, "memory": 3e9},
    {"CPU": 2, "memory": 8e9, "accelerator_type:L4": 0.001},
]


@pytest.mark.parametrize("beside", _BESIDE, ids=str)
@pytest.mark.parametrize("together", [True, False], ids=["workers", "tasks"])
def test_four_gpu_workers_get_one_machine_and_one_a_small_one(
    config: dict[str, Any], beside: dict[str, float], together: bool
) -> None:
    assert launched(config, 1, together=together, GPU=1, **beside) == {"gpu_spot": 1}
    assert launched(config, 4, together=together, GPU=1, **beside) == {"gpu4_spot": 1}
    assert launched(config, 8, together=together, GPU=1, **beside) == {"gpu4_spot": 1, "gpu4_on_demand": 1}


@pytest.mark.parametrize("memory", [{}, {"memory": 2e9}], ids=str)
def test_what_needs_no_gpu_starts_no_machine_that_has_one(
    config: dict[str, Any], memory: dict[str, float]
) -> None:
    for count, nodes in ((1, 1), (8, 1), (64, 8)):
        assert launched(config, count, together=False, CPU=1, **memory) == {"cpu_spot": nodes}


def test_containers_see_gpus_where_the_machine_has_some(config: dict[str, Any]) -> None:
    version = pins("constraints.txt")["ray"]
    for kind in config["available_node_types"].values():
        docker = {**config["docker"], **kind.get("docker", {})}  # as Ray does
        gpu = "GPU" in kind["resources"]
        assert docker["worker_image"] == f"rayproject/ray:{version}-py311-{'gpu' if gpu else 'cpu'}"
        assert ("--gpus all" in docker.get("worker_run_options", [])) == gpu  # docker fails where there is none


def test_cluster_files_open_nothing_but_ssh(config: dict[str, Any]) -> None:
    rules = config["provider"].get("security_group", {}).get("IpPermissions", [])  # Ray itself adds ssh
    assert all(rule["FromPort"] == rule["ToPort"] == 22 for rule in rules)
    started = start_options(config["head_start_ray_commands"][-1])
    assert started["dashboard_host"] == "127.0.0.1"
    assert "0.0.0.0" not in str(config)  # noqa: S104


def test_ray_keeps_the_ssh_rule_of_a_security_group_and_opens_one_that_it_makes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray's own code, on a simulated AWS; the group is made as docs/cluster.md does."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "simulated")
    config = prepare_config(load("cluster.yaml"))
    group_name = config["provider"]["security_group"]["GroupName"]

    def ssh_from() -> set[str]:
        permissions = client.describe_security_groups(GroupNames=[group_name])["SecurityGroups"][0][
            "IpPermissions"
        ]
        assert [rule["UserIdGroupPairs"][0]["GroupId"] for rule in permissions if rule["IpProtocol"] == "-1"]
        ranges = [rule["IpRanges"] for rule in permissions if rule.get("FromPort") == 22]
        return {one["CidrIp"] for some in ranges for one in some}

    for made_before in (True, False):
        with mock_aws():
            client = boto3.client("ec2", region_name=config["provider"]["region"])
            subnet = client.describe_subnets()["Subnets"][0]
            if made_before:
                group = client.create_security_group(GroupName=group_name, Description="nodes of Ray")["GroupId"]
                mine = {
                    "IpProtocol": "tcp",
                    "FromPort": 22,
                    "ToPort": 22,
                    "IpRanges": [{"CidrIp": "192.0.2.7/32"}],
                }
                nodes = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
                client.authorize_security_group_ingress(GroupId=group, IpPermissions=[mine, nodes])
            resolved = copy.deepcopy(config)
            for kind in resolved["available_node_types"].values():
                kind["node_config"]["SubnetIds"] = [subnet["SubnetId"]]
            _configure_security_group(resolved)
            assert ssh_from() == ({"192.0.2.7/32"} if made_before else {"0.0.0.0/0"})


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
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["s3"]
    assert sorted(filter(None, printed)) == sorted(wanted)


@pytest.mark.slow
def test_nodes_of_an_image_that_has_all_packages_download_nothing(tmp_path: Path) -> None:
    """The command of the nodes, in this environment, which has what constraints.txt says; without any index."""
    (line,) = (line for line in load("cluster.yaml")["setup_commands"] if line.startswith("pip install"))
    here = {
        "~/promoter/constraints.txt": "constraints.txt",
        "/tmp/requirements.txt": str(tmp_path / "requirements.txt"),  # noqa: S108 # of the nodes
    }
    here["~/promoter/constraints-cloud.txt"] = "deploy/constraints-cloud.txt"
    words = [here.get(word, word) for word in shlex.split(line)]
    printed = subprocess.run(
        [sys.executable, str(DEPLOY / "requirements.py"), "pyproject.toml", "s3"],
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    (tmp_path / "requirements.txt").write_bytes(printed.stdout)
    pip = [sys.executable, "-m", *words, "--dry-run", "--no-index"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    run = subprocess.run(pip, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    assert "already satisfied: torch" in run.stdout
    assert "Would install" not in run.stdout


@pytest.mark.parametrize("name", ["constraints.txt", "deploy/constraints-cloud.txt"])
def test_pinned_versions_are_within_the_ranges_of_pyproject(name: str) -> None:
    extras = PROJECT["optional-dependencies"]
    pinned = pins(name)
    ranges = [Requirement(line) for line in PROJECT["dependencies"] + extras["s3"] + extras["gcs"]]
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


# --- the image ---------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, list[str]]]:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest.split()) for name, rest in lines]


def copies() -> list[tuple[str, int]]:
    """What the image copies from the project: the path, and the index of the instruction in the Dockerfile."""
    return [
        (word, number)
        for number, (name, words) in enumerate(instructions())
        if name == "COPY" and "--from=pins" not in words
        for word in words[1:-1]
    ]


def test_the_image_is_built_from_files_that_exist_and_are_not_ignored() -> None:
    copied = list(dict.fromkeys(word for word, _ in copies()))
    assert all((ROOT / name).exists() for name in copied)
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules == ["*", *(f"!{name}" for name in copied), "**/__pycache__"]
    assert set(wheel_sources()) <= set(copied)


def test_an_edit_of_the_code_or_of_another_pin_leaves_the_layer_of_torch_as_it_is(tmp_path: Path) -> None:
    """What stands before a layer decides whether it is built anew; the instruction that makes it is run here."""
    steps = instructions()
    final = max(number for number, (name, _) in enumerate(steps) if name == "FROM")
    runs = [number for number, (name, _) in enumerate(steps) if name == "RUN" and number > final]
    before = [rest for name, rest in steps[final : runs[0]] if name == "COPY"]
    assert before == [["--from=pins", "--chown=ray:users", "/tmp/pins/torch.txt", "./"]]  # noqa: S108 # of the image
    assert steps[runs[0]][1][-2:] == ["-r", "torch.txt"]
    assert min(number for word, number in copies() if word in ("promoter", "jobs")) > runs[1]

    make = next(" ".join(rest) for name, rest in steps if name == "RUN")
    torch = []
    for edit in ("", "x"):
        folder = tmp_path / f"pins{edit}"
        folder.mkdir()
        for name, number in copies():
            if number < final:
                shutil.copy(ROOT / name, folder)
        for name, text in (("constraints.txt", "\n# an edit\nzzz==1.0\n"), ("pyproject.toml", "\n# an edit\n")):
            if edit:
                (folder / name).write_text((folder / name).read_text() + text)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(make, shell=True, check=True, cwd=folder, env={**os.environ, "PATH": path})  # noqa: S602
        torch.append((folder / "torch.txt").read_text())
        wanted = {*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["gcs"]}
        assert wanted <= set((folder / "requirements.txt").read_text().splitlines())
    assert torch == [f"torch=={pins('constraints.txt')['torch']}\n"] * 2


def wheel_sources() -> list[str]:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = whole["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return [*packages, PROJECT["readme"], *PROJECT["license-files"]]


def test_the_image_is_pinned_unprivileged_and_without_secrets() -> None:
    known = {"ARG", "FROM", "USER", "WORKDIR", "COPY", "RUN", "ENV"}
    assert {name for name, _ in instructions()} <= known
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users[-1] == ["ray"]
    whole = " ".join(word for _, rest in instructions() for word in rest)
    for argument in (rest[0].split("=")[0] for name, rest in instructions() if name == "ARG"):
        assert f"${argument}" in whole or f"${{{argument}" in whole
    assert "-c constraints.txt -c constraints-cloud.txt -r requirements.txt" in whole
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
