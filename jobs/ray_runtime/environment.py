"""The environment variables that a job gives Ray, which reads them when it is imported."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from jobs.ray_runtime.running import find_running
from promoter.errors import InputError

# For the Ray that a job starts on this machine for itself.
_LOCAL = {
    # In spite of its name: nodes are called 127.0.0.1, so that Ray listens there and nowhere else.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    # Nobody takes this machine away from itself, and the process that looks takes seconds to start.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


def is_debug() -> bool:
    """Tell whether `--debug` was given."""
    return os.environ.get("PROMOTER_DEBUG") == "1"


def set_environment() -> None:
    """Set what Ray reads: loopback and a new token for a Ray of this job alone, the user's token for others."""
    settings: dict[str, str] = {}
    if not is_debug():
        # The driver prints what raylets say of lost workers, whatever ray.init is told; jobs say it themselves.
        settings["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
    try:
        running = find_running()
    except InputError:  # raised again by `connect`
        return
    if running is None:
        # A token for this run alone: nobody else on the machine can connect, and no file is written.
        settings |= _LOCAL | {_MODE: "token", _TOKEN: secrets.token_hex(32)}
    elif running.wants_token:
        settings[_MODE] = "token"  # the token is the user's own: without the mode Ray would not send it
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def has_token() -> bool:
    """Tell whether the user has a token for clusters, where Ray looks for it."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path("~/.ray/auth_token").expanduser()
    return bool(os.environ.get(_TOKEN)) or Path(path).is_file()
