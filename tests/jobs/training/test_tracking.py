"""What `--track` leaves in TensorBoard's logs and in an MLflow database, read back as these tools read it."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.commands import SMALL_NETWORK, exit_code
from tensorboardX.proto import event_pb2
from upath import UPath

from jobs.train import train
from jobs.training import tracking
from jobs.training.tracking import start_tracking
from jobs.tune import tune
from promoter import storage
from promoter.errors import InputError

messages: Any = event_pb2  # its classes are made when it is imported
Points = dict[str, list[tuple[int, float]]]


def read_logs(folder: Path) -> Points:
    """Read logs as TensorBoard does: one that begins at a step hides what earlier ones have from there on."""
    points: Points = defaultdict(list)
    for path in sorted(folder.glob("events.out.*"), key=lambda path: path.stat().st_mtime_ns):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event, content = messages.Event.FromString(content[12 : 12 + size]), content[16 + size :]
            if event.HasField("session_log") and event.session_log.status == messages.SessionLog.START:
                points = defaultdict(
                    list, {tag: [p for p in seen if p[0] < event.step] for tag, seen in points.items()}
                )
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    points[value.tag].append((event.step, value.simple_value))
    return points


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of an empty database, which `--track mlflow` writes to."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    return tracking.mlflow_client()


def runs_of(client: Any) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("mine")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def history(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def records(first: int, last: int) -> Iterable[dict[str, Any]]:
    for epoch in range(first, last + 1):
        yield {"epoch": epoch, "val_mse": 1 / epoch, "val_pearson": float("nan") if epoch == 1 else 0.5}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_no_point_is_doubled_when_a_training_resumes_or_repeats_an_epoch(tmp_path: Path, database: Any) -> None:
    out, settings, metrics = UPath(tmp_path / "run"), {"training": {"epochs": 6}}, {"a+b": {"mse": 2.0, "n": 9}}
    out.mkdir()
    shown: list[int] = []

    def follow(steps: Iterable[dict[str, Any]], ends: bool) -> None:
        with start_tracking(out, ["tensorboard", "mlflow"]).follow(out / "fold_1", settings) as run:
            for record in steps:
                run.before(lambda record: shown.append(record["epoch"]) if "epoch" in record else None)(record)
            if not ends:
                raise KeyboardInterrupt
            run.finish({target: {"pearson": None, "spearman": 0.1, **of} for target, of in metrics.items()})

    with pytest.raises(KeyboardInterrupt):
        follow(records(1, 4), ends=False)
    (failed,) = runs_of(database).values()
    assert failed.info.status == "FAILED"
    # resumed after the third, whose worker is lost after the fifth
    follow([{"restored": 3}, *records(4, 5), *records(5, 6)], ends=True)
    assert shown == [1, 2, 3, 4, 4, 5, 5, 6]
    logs = read_logs(tmp_path / "run" / "tensorboard" / "fold_1")
    (run,) = runs_of(database).values()
    expected = [(epoch, pytest.approx(1 / epoch)) for epoch in range(1, 7)]
    assert logs["val_mse"] == expected
    assert history(database, run, "val_mse") == expected
    assert [step for step, _ in logs["val_pearson"]] == [2, 3, 4, 5, 6]  # NaN is no point
    assert logs["test_mse/a_b"] == [(7, 2.0)]
    assert history(database, run, "test_mse/a_b") == [(7, 2.0)]
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run/fold_1"
    assert run.data.params == {"training.epochs": "6"}
    # a run that ended between its last epoch and its results
    follow([{"restored": 6}], ends=True)
    assert read_logs(tmp_path / "run" / "tensorboard" / "fold_1") == logs
    assert history(database, run, "test_mse/a_b") == [(7, 2.0)]
    # one that was deleted in MLflow is begun anew
    database.delete_run(run.info.run_id)
    follow([{"restored": 3}, *records(4, 6)], ends=True)
    (again,) = runs_of(database).values()
    assert again.info.run_id != run.info.run_id


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_trainings_seeds_and_trials_are_followed_and_a_resumed_command_may_track_otherwise(
    ray_cluster: object, data: Path, tmp_path: Path, database: Any
) -> None:
    flags = ["--data", data, *SMALL_NETWORK, "--training.epochs", 2, "--baselines", "false", "--seeds", 2]
    flags += ["--split.val", "chr3", "--split.test", "chr4", "--workers", 0]
    out = tmp_path / "cv"
    assert exit_code(train, *flags, "--out", out, "--track", "tensorboard,mlflow") == 0
    runs = runs_of(database)
    assert set(runs) == {"cv/fold_1_seed_1", "cv/fold_1_seed_2"}
    metrics = storage.read_json(out / "folds" / "fold_1_seed_2" / "metrics.json")["test"]["expression"]
    second = runs["cv/fold_1_seed_2"]
    for points in (
        read_logs(out / "tensorboard" / "fold_1_seed_2"),
        {name: history(database, second, name) for name in second.data.metrics},
    ):
        table = pd.read_csv(out / "folds" / "fold_1_seed_2" / "history.csv")
        for name in ("train_mse", "val_mse", "val_pearson", "learning_rate"):
            assert [step for step, _ in points[name]] == [1, 2]
            np.testing.assert_allclose([value for _, value in points[name]], table[name], rtol=1e-6)
        assert points["test_pearson/expression"] == [(3, pytest.approx(metrics["pearson"]))]
    assert second.data.params["model.channels"] == "[8, 8]"
    assert exit_code(train, *flags, "--out", out) == 0  # finished already, with another --track
    space = "{training.learning_rate: {choices: [3.0e-3, 1.0e+6]}}"
    flags = ["--data", data, "--space", space, "--algorithm", "grid", "--folds", 2, *SMALL_NETWORK]
    flags += ["--split.test", "chr4", "--asha", "false", "--training.epochs", 2, "--workers", 0]
    assert exit_code(tune, *flags, "--out", tmp_path / "search", "--track", "mlflow") == 0
    runs = runs_of(database)
    assert {name for name in runs if name.startswith("search")} == {"search/trial_1", "search/training"}
    table = pd.read_csv(tmp_path / "search" / "trials.csv")  # the other trial failed in its first epoch
    (best,) = table.loc[table["status"] == "finished", "score"]
    assert history(database, runs["search/trial_1"], "score")[-1] == (2, pytest.approx(best))
    assert runs["search/trial_1"].data.params == {"training.learning_rate": "0.003"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_mlflow_that_cannot_be_reached_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", tmp_path / "missing", "--out", tmp_path / "out", "--track", "mlflow"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
        for job in (train, tune):
            assert exit_code(job, *flags) == 2
            assert "MLflow is not installed; pip install" in capsys.readouterr().err
    pytest.importorskip("mlflow")
    assert exit_code(train, *flags) == 2
    assert "MLFLOW_TRACKING_URI is not set" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert exit_code(train, *flags) == 2
    assert "MLFLOW_TRACKING_URI=http://127.0.0.1:9: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI"):
        start_tracking(UPath(tmp_path), ["mlflow"])


def test_a_database_that_fails_amid_a_training_stops_nothing(
    tmp_path: Path, database: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = UPath(tmp_path / "run")
    with start_tracking(out, ["mlflow"]).follow(out, {}) as run:
        run.log(1, {"val_mse": 1.0})
        (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
        run.log(2, {"val_mse": 1.0})
        run.log(3, {"val_mse": 1.0})
    assert capsys.readouterr().out.count("--track mlflow: could not be written, points will be missing") == 1
