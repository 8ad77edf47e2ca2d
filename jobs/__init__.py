"""Ray entry points: `python -m jobs.NAME --help`. They hold no biology; that is in `promoter`."""

import os
import sys
from importlib.abc import MetaPathFinder

# Ray reads these when it is imported, which is after this. What the user has set stays.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # prints in a worker would show twice
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about a default to come
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)


class _BeforeRay(MetaPathFinder):
    """Set what depends on the Ray that is running just before Ray is imported: `--help` need not look for it."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "ray":
            sys.meta_path.remove(self)
            from jobs.ray_runtime.environment import set_environment

            set_environment()


if "ray" not in sys.modules:  # else Ray has read its environment already
    sys.meta_path.insert(0, _BeforeRay())
