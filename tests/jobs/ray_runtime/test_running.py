"""Which Ray a job takes: one of `ray start` that is running, or one that it starts within what it may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
from support.processes import ray_workers, read_each, wait_until
from support.ray_head import Head, free_ports

pytestmark = pytest.mark.ray
_JOB = """
from jobs.cli.run import run
def job() -> None:
    'Connect, and do something.'
    from jobs.ray_runtime.connect import connect
    connect()
    import os, ray
    {}
run(job, [])
"""
_LOOK = """
from jobs.ray_runtime.running import find_running, ignored
print(find_running(), *ignored(), sep='\\n')
"""


def _environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return clean | variables


def _run(code: str, environment: Mapping[str, str], *prefix: str) -> subprocess.CompletedProcess[str]:
    words = [*prefix, sys.executable, "-c", code]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_running_ray_of_this_user_is_taken_and_no_other(tmp_path: Path) -> None:
    head, second = Head(), Head()
    temporary = {"temp-dir": head.folder / "ray"}
    # without the user's own token, wherever the tests run
    environment = _environment(TMPDIR=str(head.folder), HOME=str(tmp_path))
    with_token = environment | {"RAY_AUTH_TOKEN": head.token}
    # a command of its own Ray beside it, with its files in the same folder
    words = [sys.executable, "-c", _JOB.format("input()")]
    beside = subprocess.Popen(words, env=environment | {"RAY_ADDRESS": "local"}, stdin=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: ray_workers(pid=beside.pid), while_runs=beside)
        found = _run(_LOOK, environment).stdout
        assert found.startswith("None\n")
        assert str(head.folder) not in found

        head.start(**temporary, **{"num-cpus": 7})
        printed = _run(_JOB.format("print(os.environ['RAY_AUTH_TOKEN'])"), with_token)
        line, token = printed.stdout.splitlines()[-2:]  # before them, other Rays of this machine are named
        assert line.startswith("Ray running at ")
        assert line.endswith(
            f":{head.port} (1 node): 7 CPUs, 0 GPUs; RAY_ADDRESS=local starts one for this job alone"
        )
        assert token == head.token
        assert printed.stderr == ""

        without = _run(_JOB.format("pass"), environment)
        assert without.returncode == 2
        assert "wants a token, and there is none; set RAY_AUTH_TOKEN" in without.stderr
        elsewhere = _run(_LOOK, environment | {"TMPDIR": str(tmp_path)}).stdout
        assert elsewhere.startswith("None\n")
        assert f"keeps its files in {head.folder / 'ray'}: it is left alone; RAY_ADDRESS=" in elsewhere

        second.start(**temporary)
        both = _run(_JOB.format("pass"), with_token)
        assert both.returncode == 2
        assert both.stderr.startswith("error: Ray runs at ")
        assert f":{head.port} " in both.stderr
        assert f":{second.port} " in both.stderr
        # its head is lost; the rest of it outlives that by a minute
        read_each(psutil.Process.kill, [one for one in second.processes if one.name() == "gcs_server"])
        found, *ignored = _run(_LOOK, with_token).stdout.splitlines()
        assert f":{head.port}'" in found
        assert any(f":{second.port} does not answer" in line for line in ignored)
    finally:
        head.end()
        second.end()
        beside.communicate("\n")


@pytest.mark.skipif(os.getuid() != 0, reason="starts a process of another user")
def test_the_ray_of_another_user_is_named_and_left_alone(tmp_path: Path) -> None:
    raylet = Path("/tmp") / f"promoter-{os.getpid()}" / "raylet"  # noqa: S108 # that the other user may read
    raylet.parent.mkdir()
    raylet.write_text("#!/bin/sh\nread wait\n")  # stands for a Ray that the other user cannot start from here
    raylet.chmod(0o755)
    port = free_ports(1)[0]
    words = [raylet, f"--gcs-address=127.0.0.1:{port}", f"--temp_dir={tmp_path}/ray", "--session-name=session_1_1"]
    other = subprocess.Popen(words, user=65534, stdin=subprocess.PIPE, cwd="/")
    try:
        printed = _run(_LOOK, _environment(TMPDIR=str(tmp_path))).stdout
        assert printed.startswith("None\n")
        assert f"Ray at 127.0.0.1:{port} is nobody's: it is left alone" in printed
    finally:
        other.communicate(b"\n")
        raylet.unlink()
        raylet.parent.rmdir()


def test_auto_wants_a_ray_that_is_running(tmp_path: Path) -> None:
    done = _run(_JOB.format("pass"), _environment(TMPDIR=str(tmp_path), RAY_ADDRESS="auto"))
    assert done.returncode == 2
    assert (
        "error: RAY_ADDRESS=auto: no Ray of yours runs on this machine; `ray start --head` starts one"
        in done.stderr
    )


@pytest.fixture(scope="module")
def alone() -> subprocess.CompletedProcess[str]:
    """A job that may use one CPU: a task logs, and one is lost."""
    code = """
    import logging, time
    from pathlib import Path
    @ray.remote(max_retries=0)
    def log():
        logging.getLogger('promoter').info('a line of a task')
    @ray.remote(max_retries=0)
    def die():
        os.kill(os.getpid(), 9)
    ray.get(log.remote())
    try:
        ray.get(die.remote())
    except ray.exceptions.WorkerCrashedError:
        print('a task was lost')
    session = Path('/tmp/ray') / ray.get_runtime_context().get_session_name()
    for path in session.glob('logs/worker-*.err'):
        print(path.read_text())
    time.sleep(2)  # for what Ray would print
"""
    environment = _environment(RAY_ADDRESS="local", RAY_LOGGING_CONFIG_ENCODING="JSON", TMPDIR="/tmp")  # noqa: S108
    return _run(_JOB.format(code.strip()), environment, "taskset", "-c", str(min(os.sched_getaffinity(0))))


def test_a_job_takes_only_the_cpus_that_it_may_use(alone: subprocess.CompletedProcess[str]) -> None:
    assert alone.returncode == 0, alone.stderr
    assert "Ray on this machine: 1 CPUs" in alone.stdout


def test_raylets_print_nothing_when_a_worker_is_lost(alone: subprocess.CompletedProcess[str]) -> None:
    assert "a task was lost" in alone.stdout
    assert "raylet" not in alone.stdout + alone.stderr


def test_workers_log_json_if_asked(alone: subprocess.CompletedProcess[str]) -> None:
    line = next(line for line in alone.stdout.splitlines() if "a line of a task" in line)
    assert json.loads(line)["task_name"] == "log"
    done = _run(_JOB.format("pass"), _environment(RAY_ADDRESS="local", RAY_LOGGING_CONFIG_ENCODING="XML"))
    assert done.returncode == 2
    assert done.stderr == "error: RAY_LOGGING_CONFIG_ENCODING=XML: must be TEXT or JSON\n"
