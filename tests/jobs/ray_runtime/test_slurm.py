"""`deploy/slurm.sh` without Slurm: its own Ray commands, on one machine that stands for both nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from support.processes import TIMEOUT, has_checkpoint, read_each, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "deploy" / "slurm.sh"
# The commands of Slurm that the script calls. srun starts its command once a node and forwards signals to it.
SCONTROL = """#!/bin/bash
case $1 in
    show) printf '%s\\n' "$HOSTNAME" "$HOSTNAME" ;;
    requeue) echo "requeued $2" ;;
esac
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
ranks=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_NODEID=$node "$@" &
    ranks+=($!)
done
trap 'kill "${ranks[@]}"' TERM
wait
wait
"""


class Slurm:
    """One job of Slurm, which can be run again: its id stays the same."""

    def __init__(self, folder: Path) -> None:
        self.job = 4_000_000 + os.getpid()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
        self.environment = {
            **clean,
            "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOSTNAME": os.uname().nodename,
            "SLURM_JOB_ID": str(self.job),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_MEM_PER_NODE": "1000",
            "GLOO_SOCKET_IFNAME": "lo",
        }

    def run(self, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(SCRIPT), *map(str, words)],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def processes(self) -> list[psutil.Process]:
        ids = read_each(lambda process: process.environ().get("SLURM_JOB_ID"), psutil.process_iter())
        return [process for process, job in ids.items() if job == str(self.job)]

    def folders(self) -> list[Path]:
        return list(Path("/tmp").glob(f"promoter-{self.job}-*"))  # noqa: S108 # the script's


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    job = Slurm(tmp_path)
    yield job
    read_each(psutil.Process.kill, job.processes())
    for folder in job.folders():
        shutil.rmtree(folder)


def test_a_training_on_two_nodes_is_requeued_before_the_time_limit_and_resumes(
    slurm: Slurm, long_flags: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["train", *long_flags, "--cpus_per_worker", 1, "--gpus_per_worker", 0, "--out", out]
    first = slurm.run(*words)
    wait_until(lambda: has_checkpoint(out), while_runs=first)
    raylets = [process for process in slurm.processes() if process.name() == "raylet"]
    resources = [next(word for word in raylet.cmdline() if "static_resource_list" in word) for raylet in raylets]
    assert len(raylets) == 2
    assert all(",CPU,1," in f"{line}," and "memory,629145600" in line for line in resources)  # 60% of 1000 MiB
    tokens = {process.environ().get("RAY_AUTH_TOKEN") for process in raylets}
    assert len(tokens) == 1
    assert len(tokens.pop() or "") == 64
    assert {oct(folder.stat().st_mode & 0o777) for folder in slurm.folders()} == {"0o700"}
    first.send_signal(signal.SIGUSR1)
    printed, _ = first.communicate(timeout=TIMEOUT)
    assert first.returncode == 0, printed
    assert "(2 nodes): 2 CPUs" in printed
    assert f"requeued {slurm.job}" in printed
    assert slurm.processes() == []
    assert slurm.folders() == []

    second = slurm.run(*words)
    printed, _ = second.communicate(timeout=TIMEOUT)
    assert second.returncode == 0, printed
    assert "resum" in printed
    assert pd.read_csv(out / "history.csv")["epoch"].tolist() == list(range(1, 31))
    assert (out / "metrics.json").exists()
    assert slurm.processes() == []


def test_on_one_node_the_script_ends_with_the_exit_code_of_its_command(slurm: Slurm) -> None:
    slurm.environment["SLURM_JOB_NUM_NODES"] = "1"
    done = slurm.run("train", "--data", "nowhere", "--out", "nowhere")
    printed, _ = done.communicate(timeout=TIMEOUT)
    assert done.returncode == 2, printed
    assert "error: " in printed
    assert slurm.processes() == []
