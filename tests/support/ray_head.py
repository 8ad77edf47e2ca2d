"""A head of `ray start` for tests, as a person starts it, with a token, ports and a folder of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from support.processes import TIMEOUT, command_line, read_each

ROOT = Path(__file__).parents[2]
_RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]


def _folder() -> Path:
    """Return a new folder with a short name: those of the sockets in it have a limit."""
    folder = Path("/tmp") / f"promoter-{secrets.token_hex(3)}"  # noqa: S108 # random, and removed
    folder.mkdir(mode=0o700)
    return folder


def free_ports(count: int) -> list[int]:
    """Return free ports, below those that the kernel gives to connections: one could take them meanwhile."""
    ports: list[int] = []
    while len(ports) < count:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports += [] if port in ports else [port]
    return ports


@dataclass
class Head:
    """A head of `ray start`, with its own token, ports and folder, and what `ray job` needs to reach it."""

    folder: Path = field(default_factory=_folder)
    token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    processes: list[psutil.Process] = field(default_factory=list)
    dashboard: str = ""
    port: int = field(default_factory=lambda: free_ports(1)[0])
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """A person's shell, as docs/cluster.md has it: nothing in it of this process's own Ray."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
        return {
            **clean,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the jobs' Python is this one
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_USAGE_STATS_ENABLED": "0",
            "GLOO_SOCKET_IFNAME": "lo",
            **self.variables,
        }

    def start(self, **more: object) -> None:
        """Start it, with these flags, too; `port` stays the same when it is started again."""
        dashboard, agent, client = free_ports(3)
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        flags = {
            "node-ip-address": "127.0.0.1",
            "port": self.port,
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent,
            "ray-client-server-port": client,
            "num-cpus": 2,
            "object-store-memory": 200_000_000,
            "temp-dir": self.folder,
            **more,
        }
        words = [*_RAY, "start", "--head", *(f"--{name}={value}" for name, value in flags.items())]
        subprocess.run(words, env=self.environment, cwd=self.folder, check=True, capture_output=True, text=True)
        self.processes = list(filter(self._is_mine, psutil.process_iter()))
        assert self.processes
        deadline = time.monotonic() + TIMEOUT
        while not self._answers():
            assert time.monotonic() < deadline, "no dashboard"
            time.sleep(0.2)

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("RAY_AUTH_TOKEN") == self.token and process.pid != os.getpid()
        except psutil.Error:
            return False

    def _answers(self) -> bool:
        request = urllib.request.Request(  # noqa: S310 # of loopback
            f"{self.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 # of loopback
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def join(self, **flags: object) -> None:
        """Start a node of this head, with these flags of `ray start`; it ends with the head."""
        words = [*_RAY, "start", f"--address=127.0.0.1:{self.port}", "--object-store-memory=100000000"]
        words += [f"--{name}={value}" for name, value in flags.items()]
        subprocess.run(words, env=self.environment, cwd=self.folder, check=True, capture_output=True, text=True)

    def workers(self, name: str) -> list[psutil.Process]:
        """Return the processes of tasks and actors whose name holds a text."""
        lines = read_each(command_line, filter(self._is_mine, psutil.process_iter()))
        return [process for process, line in lines.items() if line.startswith("ray::") and name in line]

    def kill(self) -> None:
        """End all that runs with this head's token, with SIGKILL: as when the machine is lost."""
        for process in list(filter(self._is_mine, psutil.process_iter())):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def end(self) -> None:
        """Kill it, and remove what it has left."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def job(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run `ray job …`."""
        return subprocess.run(
            [*_RAY, "job", *map(str, words)],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )

    def submit(
        self, job: str, *flags: object, wait: bool = True, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Submit a job, with more options of `ray job submit`, and wait for its end unless told otherwise."""
        more = [] if wait else ["--no-wait", "--submission-id", f"{job}-{time.time_ns()}"]
        return self.job(
            "submit", "--working-dir", ".", *more, *options, "--", "python", "-m", f"jobs.{job}", *flags
        )

    def start_job(self, job: str, *flags: object) -> str:
        ended = self.submit(job, *flags, wait=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        name = re.search(rf"{job}-\d+", ended.stdout)
        assert name
        return name[0]

    def status(self, name: str) -> str:
        return self.job("status", name).stdout
