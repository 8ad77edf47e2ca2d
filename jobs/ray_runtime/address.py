"""What Ray reads from the environment, checked before Ray does: it waits minutes for a head that does not answer.

Ray reports what is wrong here in C++ logs, or not at all. So the address must parse and answer, the format of logs
must be one that Ray has, and the folder for the files of a Ray that is started here must leave room for the names
of its sockets.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
import threading

from promoter.errors import InputError

ADDRESS = "RAY_ADDRESS"
_ENCODING = "RAY_LOGGING_CONFIG_ENCODING"
_WAIT_SECONDS = 12.0  # for name service, connection and answer together
_NOT_HOSTS = ("auto", "local")  # Ray finds the address itself, or starts a head
_HOST_AND_PORT = re.compile(r"(?:ray://)?(\[[0-9a-fA-F:.%]+\]|[\w.-]+):(\d{1,5})", re.ASCII)
# how any gRPC call begins, so that every head answers: HTTP/2 and an empty frame of settings (type 4)
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTINGS_FRAME = 4
_MAX_SOCKET_PATH = 107  # bytes, of Linux; macOS has 103
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"  # with the largest process id
_FIX = f"{ADDRESS}=local starts Ray on this machine; else give HOST:PORT of a head of `ray start`"


def require_address() -> str | None:
    """Check that the head in `RAY_ADDRESS` answers; return the address, None where it is not set.

    Raises:
        InputError: the address does not parse, its host is unknown, nothing answers, or what answers is no Ray.
    """
    address = os.environ.get(ADDRESS)
    if address is None or address in _NOT_HOSTS:
        return address
    if address.startswith(("http://", "https://")):
        fix = "give the head's HOST:PORT (6379, say), or start the job by `ray job submit`"
        raise _refusal(f"is the address of a dashboard, which takes jobs by `ray job submit` alone; {fix}")
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 1 << 16:
        raise _refusal(f"is not HOST:PORT; {_FIX}")
    problems: list[str | None] = []
    probe = threading.Thread(
        target=lambda: problems.append(problem_of(match[1].strip("[]"), int(match[2]))), daemon=True
    )
    probe.start()
    probe.join(_WAIT_SECONDS)  # a name service can take longer, and has no limit of its own
    problem = problems[0] if problems else f"did not answer within {_WAIT_SECONDS:g} seconds"
    if problem is not None:
        raise _refusal(f"{problem}; is the head running? {_FIX}")
    return address


def refused_by_ray(address: str, error: Exception) -> InputError:
    """Return what Ray said about an address as an error that names it."""
    reason = " ".join(str(error).split())[:300]
    return InputError(
        f"Ray at {address}: Ray could not connect ({reason}); if it wants a token, set RAY_AUTH_MODE=token and "
        f"RAY_AUTH_TOKEN, or keep the token in ~/.ray/auth_token. {_FIX}"
    )


def temporary_folder() -> tuple[str | None, str]:
    """Return the variable that names the folder of Ray's files, None for the default, and that folder."""
    names = ("RAY_TMPDIR", "TMPDIR") if sys.platform == "linux" else ("RAY_TMPDIR",)
    name = next((name for name in names if name in os.environ), None)
    return name, os.environ[name] if name else "/tmp"  # noqa: S108 # where Ray's own goes


def require_log_encoding() -> None:
    """Raise InputError if RAY_LOGGING_CONFIG_ENCODING names no format of logs that Ray has."""
    encoding = os.environ.get(_ENCODING, "")
    if encoding not in ("", "TEXT", "JSON"):
        raise InputError(f"{_ENCODING}={encoding}: must be TEXT or JSON")


def require_temporary_folder() -> None:
    """Check that a Ray started here can keep its sockets in the temporary folder, whose path must be short.

    Raises:
        InputError: the folder is none, cannot be written, or its path is too long; names the variable.
    """
    name, folder = temporary_folder()
    given = f"{name}={folder}" if name else folder
    fix = "set RAY_TMPDIR to a folder with a short path, such as /tmp"
    room = _MAX_SOCKET_PATH - len(_SOCKET) - 1
    if (length := len(os.fsencode(os.path.abspath(folder)))) > room:  # noqa: PTH100 # as Ray, without links
        raise InputError(
            f"{given}: has {length} bytes, and Ray's sockets lie in it, whose paths have room for {room}", fix=fix
        )
    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 # text as it was given, as Ray does
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{given}: Ray cannot keep its files there ({error.strerror or error})", fix=fix
        ) from error


def _refusal(problem: str) -> InputError:
    return InputError(f"{ADDRESS}={os.environ[ADDRESS]}: {problem}")


def problem_of(host: str, port: int) -> str | None:
    """Return why no Ray head answers at an address, as the end of a sentence about it; None if one does."""
    try:
        with socket.create_connection((host, port), timeout=_WAIT_SECONDS / 2) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":  # Ray must greet it
                return None
            connection.sendall(_GREETING)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except (OSError, UnicodeError) as error:  # the second of a name such as a..b
        return f"does not answer ({getattr(error, 'strerror', None) or error})"
    return None if answer[3:4] == bytes([_SETTINGS_FRAME]) else "is answered by something else than Ray"
