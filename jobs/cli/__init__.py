"""The command line: flags from functions, exit codes, settings as files.

`run` and `console` are modules here; their functions of the same name come from `jobs.cli.run`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from jobs.cli.config_file import job_settings, require_same, resolved, write_config
    from jobs.cli.console import one_line, plural
    from jobs.cli.model_flags import Model, ModelFlags, chosen
    from jobs.cli.run import PROVENANCE, terminate

_MODULES = {
    "config_file": ["job_settings", "require_same", "resolved", "write_config"],
    "console": ["one_line", "plural"],
    "model_flags": ["Model", "ModelFlags", "chosen"],
    "run": ["PROVENANCE", "terminate"],
}
__all__ = [
    "PROVENANCE",
    "Model",
    "ModelFlags",
    "chosen",
    "job_settings",
    "one_line",
    "plural",
    "require_same",
    "resolved",
    "terminate",
    "write_config",
]
__getattr__ = lazy_names(__name__, _MODULES)
