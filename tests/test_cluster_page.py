"""The commands of docs/cluster.md, run by a shell: what it passes to Ray and to the jobs is known to them."""

from __future__ import annotations

import jobs  # noqa: F401 # isort: skip # before ray, which reads the environment that it sets

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts
from support.deploy_files import ROOT, kuberay, kuberay_specs, load
from support.files import Command

PAGE = (ROOT / "docs" / "cluster.md").read_text()
# What the page's commands do on this machine is done; the rest, such as ray, aws and docker, is written down.
_TOOLS = ("bash", "sed", "chmod", "mkdir", "cp", "cat", "base64", "id", "tr", "head", "tail", "dirname")
_RECORDER = 'command_not_found_handle() { printf "%s\\n" "$(printf "%q " "$@")" >> "$CALLED"; }\n'


@dataclass
class Walk:
    """What the page's commands called, and the copy of the project's files that they changed."""

    called: list[list[str]]
    files: Path

    def of(self, *words: str) -> list[list[str]]:
        """Return the calls that begin with these words, without them."""
        return [call[len(words) :] for call in self.called if call[: len(words)] == list(words)]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    folder = tmp_path_factory.mktemp("walk")
    files, home, tools = folder / "promoter", folder / "home", folder / "tools"
    shutil.copytree(ROOT / "deploy", files / "deploy")
    shutil.copy(ROOT / "cluster.yaml", files)
    (files / ".venv" / "bin").mkdir(parents=True)
    (files / ".venv" / "bin" / "activate").touch()
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").touch()
    tools.mkdir()
    for name in _TOOLS:
        (tools / name).symlink_to(str(shutil.which(name)))
    script = _RECORDER + "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL))
    variables = {"PATH": tools, "HOME": home, "USER": "me", "CALLED": folder / "called", "TMPDIR": folder}
    run = subprocess.run(
        ["/bin/bash", "-e", "-c", script],
        cwd=files,
        env={name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    called = [shlex.split(line) for line in (folder / "called").read_text().splitlines()]
    return Walk([*called, shlex.split(kuberay("RayJob")["spec"]["entrypoint"])], files)


def test_ray_knows_the_commands_of_the_page(walk: Walk) -> None:
    commands = walk.of("ray")
    known = {"up", "down", "dashboard", "job", "get-auth-token", "exec", "attach", "monitor"}
    assert {words[0] for words in commands} >= known
    for words in commands:
        resolve(scripts.cli, words)
    for words in walk.of("ray", "exec"):
        remote = shlex.split(words[1])
        if remote[0] == "ray":
            resolve(scripts.cli, remote[1:])
    with pytest.raises(click.NoSuchOption):
        resolve(scripts.cli, ["job", "submit", "--workdir", ".", "--", "python"])


def resolve(group: click.Command, words: list[str]) -> click.Context:
    """Parse as the command line does, without running; a wrong command or flag raises."""
    context = group.make_context("ray", list(words))
    while isinstance(context.command, click.Group):
        _, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(command.name, rest, parent=context)
    return context


def test_every_documented_job_has_a_name_and_reserves_memory_on_the_head(walk: Walk) -> None:
    submitted = [resolve(scripts.cli, words).params for words in walk.of("ray") if words[:2] == ["job", "submit"]]
    assert len(submitted) == 4
    assert len({one["submission_id"] for one in submitted}) == len(submitted)
    # the options that stand last on the page: those of Kubernetes, where the head has no CPUs
    for one in submitted:
        assert one["entrypoint_memory"] == 6_000_000_000
        assert json.loads(one["metadata_json"]) == {"user": "me"}
        assert json.loads(one["entrypoint_label_selector"]) == {"ray.io/node-group": "headgroup"}
        assert one["entrypoint_num_cpus"] is None


def test_the_commands_of_the_page_leave_files_that_ray_accepts(walk: Walk) -> None:
    aws, gcp = (prepare_config(load(name, walk.files)) for name in ("cluster.yaml", "deploy/gcp.yaml"))
    registry = ".dkr.ecr.us-west-2.amazonaws.com/promoter:0.1.0"  # the account's number is asked of AWS
    kinds = aws["available_node_types"]
    assert aws["docker"]["head_image"] == aws["docker"]["worker_image"] == f"{registry}-cpu"
    assert {kinds[name]["docker"]["worker_image"] for name in ("gpu_spot", "gpu4_on_demand")} == {registry}
    assert "docker login" in aws["initialization_commands"][-1]
    assert "MY-PROJECT" not in json.dumps(gcp)
    for config in (aws, gcp):
        validate_config(config)
    left = [path.name for path in (walk.files / "deploy").glob("kuberay-*") if re.search("MY-[A-Z]", data(path))]
    assert left == []
    assert kuberay_specs(walk.files)["job"] == kuberay_specs(walk.files)["cluster"]


def data(path: Path) -> str:
    """Return what a YAML file holds, without its comments."""
    return json.dumps(list(yaml.safe_load_all(path.read_text())))


@pytest.mark.slow
@pytest.mark.parametrize("job", ["prepare", "train", "tune", "ism"])
def test_the_jobs_know_the_flags_of_the_page(job: str, command: Command, walk: Walk) -> None:
    calls = [list(flags_of(job, words)) for words in walk.called]
    assert any(calls)
    for words in filter(None, calls):
        given = dict(zip(words[::2], words[1::2], strict=True))
        given.pop("--config", None)  # a file in the bucket
        run = command(job, *(word for pair in given.items() for word in pair), "--print_config")
        assert run.returncode == 0, run.stderr
        printed = yaml.safe_load(run.stdout)
        assert {flag: str(printed[flag[2:]]).removesuffix(".0") for flag in given} == given


def flags_of(job: str, words: list[str]) -> list[str]:
    """Return the flags of `python -m jobs.JOB` or `promoter JOB`, wherever it stands in a command."""
    for index, word in enumerate(words):
        if word == f"jobs.{job}" or (word == job and Path(words[index - 1]).name in ("promoter", "slurm.sh")):
            return words[index + 1 :]
    return []


def test_the_page_names_files_that_exist() -> None:
    named = set(re.findall(r"\b(?:deploy|tests)/[\w./-]+\.\w+|\bcluster\.yaml\b", PAGE))
    assert named >= {"deploy/gcp.yaml", "deploy/aws/head.json", "cluster.yaml", "deploy/kuberay-job.yaml"}
    assert [name for name in named if not (ROOT / name).is_file()] == []
