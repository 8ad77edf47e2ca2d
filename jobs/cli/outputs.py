"""What each job writes, and how it owns it: `promoter.storage.ownership` with the settings of a job.

Imports no PyArrow until a job owns its output, so that `--help` is quick.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from jobs.cli.run import given_settings
from promoter.storage import AnyPath
from promoter.storage.records import Record

if TYPE_CHECKING:
    from promoter.storage.ownership import Output
    from promoter.storage.runs import Run

_PACKAGES = ("promoter", "torch", "numpy", "pandas", "ray", "pyarrow", "pyfaidx", "pybedtools")
_OF_TRAINING = (
    *("model", "folds", "learning_curve", "embeddings", "checkpoints"),  # the last one while it trains
    *("tensorboard", "mlflow.json"),  # with --track
    *(
        "history.csv",
        "leakage.csv",
        "folds.csv",
        "learning_curve.csv",
        "predictions.parquet",
        "baselines.parquet",
        "metrics.json",
    ),
)
# job -> files and folders in its output folder, beside config.yaml; other outputs are files that the user names
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "prepare": ("promoters.parquet", "summary.json", "source"),
    "train": _OF_TRAINING,
    "tune": (
        *("search", "training"),  # Ray's folder, and that of the final training, until they are done
        *("trials.csv", "best.yaml", "importance.csv", "figures"),
        *_OF_TRAINING,
    ),
    "predict": (),
    "ism": ("scores", "manifest.json", "model.yaml"),  # the last one of an external model
    "attribute": ("scores", "manifest.json", "model.yaml"),
    "variants": (
        *("parts", "manifest.json", "model.yaml"),
        *("variants.parquet", "variants.tsv.gz", "skipped.tsv", "summary.json"),
    ),
    "motifs": ("motifs.h5", "logos", "motifs.meme", "instances.bed", "motifs.tsv"),
    "export": (
        *("ohe.npz", "shap.npz", "genes.tsv", "contributions.bw", "contributions.bedgraph", "regions.bed"),
        *("contributions.h5", "contributions.h5.regions.bed"),
    ),
    "report": (),
    "demo": (
        *("genome", "data", "run", "ism", "predictions.parquet", "predictions.config.yaml"),
        *("predictions.metrics.json", "motif_recovery.csv", "report.html", "report.config.yaml"),
    ),
}
# settings that say where to write and with what to compute, and not what comes out
_RESOURCES = frozenset(
    {
        *("out", "workers", "min_workers", "cpus_per_worker", "gpus_per_worker", "accelerator_type", "at_once"),
        *("max_hours", "track"),
    }
)

# what runs did before there was the setting
_EARLIER = {"training": {"loss": "mse", "mixup": 0.0}}


def own_folder(
    job: str,
    out: AnyPath,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    paths: Collection[str] | None = (),
    overwrite: bool = False,
) -> AbstractContextManager[Output]:
    """Own the output folder of a job, as `promoter.storage.ownership.own_folder` does.

    Args:
        job: name of the job.
        out: the folder.
        settings: plain values, as `job_settings` returns them.
        inputs: path of each input -> its SHA-256; empty where it is not known yet.
        paths: settings that name inputs, which are the same if their checksums are, or that do not change the
            output; None: any run of the job may be replaced.
        overwrite: true to take over what another run has left.
    """
    from promoter.storage import ownership  # imports PyArrow

    may_differ = None if paths is None else _RESOURCES | set(paths)
    return ownership.own_folder(out, _new_run(job, settings, inputs, may_differ), overwrite=overwrite)


def own_file(
    job: str,
    out: AnyPath,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    beside: Sequence[str] = (),
    overwrite: bool = False,
) -> AbstractContextManager[Output]:
    """Own an output of a job that is one file, as `promoter.storage.ownership.own_file` does.

    Args:
        job: name of the job.
        out: the file.
        settings: plain values, as `job_settings` returns them.
        inputs: path of each input -> its SHA-256.
        beside: endings of other files that the job writes beside it.
        overwrite: true to replace what another job or a person has written.
    """
    from promoter.storage import ownership  # imports PyArrow

    run = _new_run(job, settings, inputs, None)
    return ownership.own_file(out, run, beside=beside, overwrite=overwrite)


def _new_run(
    job: str, settings: Mapping[str, Any], inputs: Mapping[str, str], may_differ: Collection[str] | None
) -> Run:
    from promoter.storage.runs import Run

    versions = {"python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    files = [setting.source.removesuffix(": ") for setting in given_settings() if setting.source]
    record = Record(job, settings, inputs, versions)
    return Run(record, may_differ, OUTPUTS, list(dict.fromkeys(files)), _EARLIER)
