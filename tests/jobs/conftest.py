"""The fixtures of `cluster_fixtures.py`, where Ray is installed; without it `test_jobs_on_gpu.py` skips."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("ray") is not None:
    from cluster_fixtures import data, long_flags, long_run, ray_cluster, run, s3, s3_port, train_flags

    __all__ = ["data", "long_flags", "long_run", "ray_cluster", "run", "s3", "s3_port", "train_flags"]
