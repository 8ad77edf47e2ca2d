"""RAY_ADDRESS and the temporary folder are checked before Ray reads them: it would wait minutes, or die in C++."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from jobs.ray_runtime import address as checks
from jobs.ray_runtime.address import require_address, require_temporary_folder
from promoter.errors import InputError


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """Listen on a port and give each connection an answer; None takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            kept = []
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    if answer is not None:
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "is not HOST:PORT; RAY_ADDRESS=local starts Ray"),
        (" ", "is not HOST:PORT"),
        ("nonsense", "is not HOST:PORT"),
        ("ray://", "is not HOST:PORT"),
        ("ray://host", "is not HOST:PORT"),
        ("127.0.0.1: 6379", "is not HOST:PORT"),
        ("127.0.0.1:6379 ", "is not HOST:PORT"),
        ("127.0.0.1:0", "is not HOST:PORT"),
        ("127.0.0.1:65536", "is not HOST:PORT"),
        ("127.0.0.1:six", "is not HOST:PORT"),
        ("127.0.0.1:6379\n", "is not HOST:PORT"),
        ("\x1b[1m:6379", "is not HOST:PORT"),
        ("Auto", "is not HOST:PORT"),
        ("http://127.0.0.1:8265", "is the address of a dashboard.*ray job submit"),
        ("a..b:6379", "does not answer"),
        ("no-such-host.invalid:6379", "(does|did) not answer"),
        ("[::1]:1", "does not answer"),
        ("127.0.0.1:1", "does not answer .*Connection refused.*is the head running"),
        ("ray://127.0.0.1:1", "does not answer"),
    ],
)
def test_an_address_that_is_none_or_does_not_answer_is_refused(
    value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    with pytest.raises(InputError, match=problem) as error:
        require_address()
    assert str(error.value).startswith(f"RAY_ADDRESS={value}: ")


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown\r\n..", None]
)
def test_a_port_where_something_else_listens_is_refused(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_WAIT_SECONDS", 1)
    with listener(answer) as port:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(InputError, match=f"RAY_ADDRESS=127.0.0.1:{port}: .*(something else|not answer)"):
            require_address()


@pytest.mark.parametrize("value", ["auto", "local", None])
def test_what_ray_resolves_itself_is_left_to_it(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if value is not None:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert require_address() == value


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_port_that_speaks_http2_is_taken_for_a_head(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64"  # one setting, as gRPC sends them
    with listener(settings) as port:
        monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{port}")
        assert require_address() == f"{scheme}127.0.0.1:{port}"


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_without_room_for_sockets_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    file = tmp_path / "file"
    file.write_text("")
    room = checks._MAX_SOCKET_PATH - len(checks._SOCKET) - 1
    cases = {
        "/tmp/" + "x" * room: f"has {room + 5} bytes",  # noqa: S108 # never made
        "/tmp/" + "é" * (room // 2): "has .* bytes",  # noqa: S108 # never made
        "x" * 5000: "has .* bytes",
        "/dev/null": "Ray cannot keep its files there",
        "/proc/none": "Ray cannot keep its files there",
    }
    for folder, problem in cases.items():
        monkeypatch.setenv(variable, folder)
        with pytest.raises(InputError, match=f"{problem}.*set RAY_TMPDIR to a folder with a short path") as error:
            require_temporary_folder()
        assert str(error.value).startswith(f"{variable}={folder}: ")
    monkeypatch.setenv(variable, "/tmp")  # noqa: S108 # only looked at
    require_temporary_folder()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RAY_ADDRESS": "127.0.0.1:1"}, "error: RAY_ADDRESS=127.0.0.1:1: does not answer"),
        ({"RAY_ADDRESS": ""}, "error: RAY_ADDRESS=: is not HOST:PORT"),
        ({"TMPDIR": "/tmp/" + "x" * 200}, "error: TMPDIR=/tmp/xxx"),  # noqa: S108 # never made
    ],
)
def test_a_job_ends_with_2_and_one_line(variables: dict[str, str], said: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    job = (
        "from jobs.cli.run import run\n"
        "def job() -> None:\n  'Connect.'\n  from jobs.ray_runtime.connect import connect\n  connect()\n"
        "run(job, [])"
    )
    done = subprocess.run(
        [sys.executable, "-c", job], env=clean | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
