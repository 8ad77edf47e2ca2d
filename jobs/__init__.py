"""Ray entry points: `python -m jobs.NAME --help`. They hold no biology; that is in `promoter`."""

import os
import secrets
import sys

# Ray reads these when it is imported, which is after this. What the user has set stays.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # prints in a worker would show twice
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about a default to come
}
# For the Ray that a job starts on this machine for itself. Where Ray was imported before, it has read its own.
if "RAY_ADDRESS" not in os.environ and "ray" not in sys.modules:
    _SETTINGS |= {
        # In spite of its name: nodes are called 127.0.0.1, so that Ray listens there and nowhere else.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "GLOO_SOCKET_IFNAME": "lo",
        # A token for this run alone: nobody else on the machine can connect, and no file is written.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
