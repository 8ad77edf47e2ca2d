"""All jobs on `s3://`: moto's server on loopback, with failures put in; results are those of a local disk."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.commands import exit_code
from support.s3_server import BUCKET, Server
from upath import UPath

from jobs.export import export
from jobs.ism import ism
from jobs.predict import predict
from jobs.prepare import prepare
from jobs.train import train
from jobs.tune import tune
from jobs.tuning import search
from promoter import storage
from promoter.errors import InputError, StorageError
from promoter.ism import load_scores
from promoter.storage.leases import hold_lease

pytestmark = [pytest.mark.ray, pytest.mark.slow]
AT = f"s3://{BUCKET}"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def at(s3: Server, data: Path, run: Path) -> str:
    """The bucket, with the data set and its model."""
    s3.upload(data, "data")
    s3.upload(run / "model", "model")
    return AT


def line(capsys: Capture) -> str:
    """Return the one line on standard error."""
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    return error


def after(puts: int, under: str, answer: str) -> Callable[[str, str], str | None]:
    """Answer writes below a folder so once that many have come."""
    seen: list[str] = []

    def fault(method: str, path: str) -> str | None:
        if method not in ("PUT", "POST") or not path.startswith(f"/{BUCKET}/{under}"):
            return None
        seen.append(path)
        return answer if len(seen) > puts else None

    return fault


def test_prepare_reads_and_writes_a_bucket(s3: Server, data: Path) -> None:
    s3.upload(data / "genome", "genome")
    names = {"genome": "genome.fa", "genes": "genes.bed", "expression": "expression.tsv"}
    files = [word for flag, name in names.items() for word in (f"--{flag}", f"{AT}/genome/{name}")]
    assert exit_code(prepare, *files, "--upstream", 100, "--max_n", 1, "--out", f"{AT}/prepared") == 0
    written = ["config.yaml", "promoters.parquet", "summary.json"]
    assert s3.keys("prepared") == [f"prepared/{name}" for name in written]
    found = storage.resolve(f"{AT}/prepared/promoters.parquet")
    assert pd.read_parquet(found.open("rb")).equals(pd.read_parquet(data / "promoters.parquet"))


def test_training_resumes_from_its_checkpoint_in_the_bucket_once_credentials_are_renewed(
    s3: Server, at: str, run: Path, train_flags: list[str], capsys: Capture
) -> None:
    flags = [*train_flags, "--data", f"{at}/data", "--out", f"{at}/run"]
    saved: list[str] = []

    def expire(method: str, path: str) -> str | None:
        if method == "PUT" and path.endswith("state.pt"):
            saved.append(path)
        return "ExpiredToken" if len(saved) > 3 else None

    with s3.failing(expire):
        assert exit_code(train, *flags) == 1
    error = line(capsys)
    assert f"{at}/run" in error
    assert "expired" in error  # or may have: by the request that comes first
    assert re.search("renew the credentials(, which may have expired,)? and run the same command again", error)
    kept = [key for key in s3.keys("run/") if key.endswith("state.pt")]
    assert kept
    others = [key for key in s3.keys("run/") if "checkpoints" not in key and key != "run/config.yaml"]
    assert all(key.startswith("run/.lease-") for key in others)  # which could not be removed either
    assert exit_code(train, *flags) == 0
    printed = capsys.readouterr().out
    assert re.search(r"resuming after epoch [1-3]\n", printed), printed
    assert not re.search(r"  1/6 ", printed)
    assert s3.read("run/model/model.safetensors") == (run / "model" / "model.safetensors").read_bytes()
    assert json.loads(s3.read("run/metrics.json")) == json.loads((run / "metrics.json").read_text())
    assert {key.split("/", 1)[1] for key in s3.keys("run/")} == {
        str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("answer", ["InternalError", "SlowDown", 1.0])
def test_a_put_that_fails_twice_or_is_slow_costs_only_time(
    s3: Server, at: str, data: Path, run: Path, tmp_path: Path, answer: str | float
) -> None:
    puts: Counter[str] = Counter()

    def fault(method: str, path: str) -> str | float | None:
        puts[path] += method == "PUT"
        return answer if method == "PUT" and puts[path] <= 2 else None

    flags = ["--model", f"{at}/model", "--data", f"{at}/data"]
    with s3.failing(fault):
        assert exit_code(predict, *flags, "--out", f"{at}/{answer}.parquet") == 0
    assert puts[f"/{BUCKET}/{answer}.parquet"] == (1 if answer == 1.0 else 3)
    assert exit_code(predict, "--model", run / "model", "--data", data, "--out", tmp_path / "p.parquet") == 0
    found = storage.resolve(f"{at}/{answer}.parquet")
    assert pd.read_parquet(found.open("rb")).equals(pd.read_parquet(tmp_path / "p.parquet"))


def test_ism_in_a_bucket_keeps_complete_files_computes_the_others_and_exports_them(
    s3: Server, at: str, data: Path, run: Path, tmp_path: Path, capsys: Capture
) -> None:
    tasks = ["--genes_per_task", 40]
    flags = ["--model", f"{at}/model", "--data", f"{at}/data", *tasks, "--out", f"{at}/ism"]
    with s3.failing(after(2, "ism/scores/", "ExpiredToken")):
        assert exit_code(ism, *flags) == 1
    error = line(capsys)
    assert re.search(rf"error: {at}/ism/scores/part-0000\d.parquet: could not be written \(.*expired", error)
    assert "renew the credentials and run the same command again" in error
    there = s3.keys("ism/scores/")
    assert len(there) == 2
    s3.requests.clear()
    assert exit_code(ism, *flags) == 0
    assert "resuming: " in capsys.readouterr().out
    written = [path for method, path in s3.requests if method == "PUT" and "/scores/" in path]
    assert len(written) == 4
    assert not {f"/{BUCKET}/{key}" for key in there} & set(written)
    assert exit_code(ism, "--model", run / "model", "--data", data, *tasks, "--out", tmp_path / "ism") == 0
    found, expected = load_scores(f"{at}/ism"), load_scores(tmp_path / "ism")
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.genes.equals(expected.genes)
    for scores, genome, out in (
        (f"{at}/ism", f"{at}/genome/genome.fa", f"{at}/export"),
        (tmp_path / "ism", data / "genome" / "genome.fa", tmp_path / "export"),
    ):
        s3.upload(data / "genome", "genome")
        assert exit_code(export, "--scores", scores, "--genome", genome, "--out", out) == 0
    for name in ("genes.tsv", "regions.bed", "contributions.bw"):
        assert s3.read(f"export/{name}") == (tmp_path / "export" / name).read_bytes()


def test_a_search_in_a_bucket_writes_its_state_at_most_once_a_minute(s3: Server, at: str) -> None:
    flags = ["--space", "{training.learning_rate: {choices: [1.0e-3, 1.0e-2]}}", "--split.test", "chr4"]
    flags += ["--trials", 2, "--folds", 2, "--at_once", 1, "--training.epochs", 3, "--model.channels", "8,8"]
    flags += ["--model.kernel_sizes", "7,3", "--model.pool_sizes", 4, "--workers", 0]
    began = time.monotonic()
    assert exit_code(tune, *flags, "--data", f"{at}/data", "--out", f"{at}/search-state") == 0
    minutes = (time.monotonic() - began) / 60
    written = [path.rpartition("/")[2] for method, path in s3.requests if method == "PUT"]
    assert sum(name.startswith("experiment_state") for name in written) <= 3 + minutes  # its start and its end
    assert written.count("states.pt") <= 2 + 2 * minutes  # the end of each trial


def test_a_search_in_a_bucket_resumes_and_finds_the_same(
    s3: Server, at: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    space = "{training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}}"
    flags = ["--space", space, "--split.test", "chr4", "--trials", 2, "--folds", 2]
    flags += ["--asha", "false", "--at_once", 1]
    flags += ["--training.epochs", 3, "--model.channels", "8,8", "--model.kernel_sizes", "7,3"]
    flags += ["--model.pool_sizes", 4, "--keep_folds", "true", "--workers", 0]
    remote = [*flags, "--data", f"{at}/data", "--out", f"{at}/search"]
    saved: set[str] = set()

    def expire(method: str, path: str) -> str | None:
        if method == "PUT" and path.endswith("states.pt"):
            saved.add(path)
        return "ExpiredToken" if len(saved) > 4 and method != "GET" else None  # in the second trial

    with s3.failing(expire), pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_BUCKET_SECONDS", 0)  # a checkpoint an epoch
        assert exit_code(tune, *remote) == 1
    error = line(capsys)
    assert f"{at}/search" in error
    assert "renew the credentials" in error
    assert "search/best.yaml" not in s3.keys("search/")
    s3.requests.clear()
    assert exit_code(tune, *remote) == 0
    written = [path.rpartition("/")[2] for method, path in s3.requests if method == "PUT"]
    assert written.count("states.pt") == 1  # within a minute: what is left of the second trial
    assert "resuming the search" in capsys.readouterr().out
    assert not [key for key in s3.keys("search/") if key.startswith(("search/search", "search/training"))]
    assert exit_code(tune, *flags, "--data", data, "--out", tmp_path / "search") == 0
    tables = [
        pd.read_csv(storage.resolve(folder).joinpath("trials.csv").open("rb")).drop(columns="seconds")
        for folder in (f"{at}/search", tmp_path / "search")
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert (
        s3.read("search/folds/fold_2/model.safetensors")
        == (tmp_path / "search" / "folds" / "fold_2" / "model.safetensors").read_bytes()
    )


@pytest.mark.parametrize("answer", ["ExpiredToken", "AccessDenied"])
def test_refused_credentials_are_named_before_heavy_work(
    s3: Server, at: str, data: Path, run: Path, capsys: Capture, answer: str
) -> None:
    jobs: list[tuple[Any, list[object]]] = [
        (train, ["--data", data, "--out", f"{at}/refused"]),
        (ism, ["--model", run / "model", "--data", data, "--out", f"{at}/refused"]),
        (predict, ["--model", f"{at}/model", "--data", data, "--out", "p.parquet"]),
        (tune, ["--data", f"{at}/data", "--out", f"{at}/refused"]),
    ]
    with s3.failing(lambda method, path: answer):
        for job, flags in jobs:
            assert exit_code(job, *flags) in (1, 2)
            error = line(capsys)
            assert AT in error
            assert ("renew the credentials" if answer == "ExpiredToken" else "check what the credentials") in error
    assert not s3.keys("refused")


def test_a_missing_bucket_is_refused_and_not_made(s3: Server, data: Path, run: Path, capsys: Capture) -> None:
    assert exit_code(predict, "--model", run, "--data", data, "--out", "s3://promotres/p.parquet") == 2
    assert "s3://promotres/: cannot write here (The specified bucket does not exist); check" in line(capsys)
    assert [one["Name"] for one in s3.client.list_buckets()["Buckets"]] == [BUCKET]


def test_a_large_object_goes_in_parts_and_leaves_none_when_one_fails(s3: Server, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(101 << 20)  # two parts or more
    path = f"{AT}/large.bin"

    def write() -> None:
        with storage.open_atomic(path) as file:
            file.write(content)

    def refuse(method: str, path: str) -> str | None:
        return "AccessDenied" if method == "PUT" else None

    denied = rf"^{path}: could not be written \(Access Denied\); "
    with s3.failing(refuse), pytest.raises(StorageError, match=denied):
        write()
    assert s3.keys("large") == s3.uploads() == []
    write()
    assert s3.read("large.bin") == content
    assert s3.uploads() == []
    (tmp_path / "local").write_bytes(content)
    with (
        s3.failing(refuse),
        pytest.raises(StorageError, match=r"other\.bin: could not be written"),
        storage.atomic_path(f"{AT}/other.bin") as local,
    ):
        local.write_bytes(content)
    assert s3.keys("other") == s3.uploads() == []


def test_objects_that_another_process_writes_are_seen_at_once(s3: Server) -> None:
    folder = storage.resolve(f"{AT}/shared")
    storage.write_text(folder / "one.txt", "1")
    assert [path.name for path in folder.glob("*.txt")] == ["one.txt"]
    assert [path.name for path in folder.iterdir()] == ["one.txt"]
    s3.client.put_object(Bucket=BUCKET, Key="shared/two.txt", Body=b"2")
    assert (folder / "two.txt").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["one.txt", "two.txt"]
    s3.client.delete_object(Bucket=BUCKET, Key="shared/two.txt")
    assert not (folder / "two.txt").exists()
    assert sorted(path.name for path in UPath(folder).glob("*")) == ["one.txt"]


def test_a_file_with_expired_credentials_is_not_taken_for_damaged(s3: Server, at: str) -> None:
    with (
        s3.failing(lambda method, path: "ExpiredToken" if method == "GET" else None),
        pytest.raises(StorageError, match=r"s3://.*could not be read .*renew the credentials"),
        storage.open_table(f"{at}/data/promoters.parquet", "data"),
    ):
        raise AssertionError("opened")
    with (
        pytest.raises(InputError, match="is not a complete Parquet file"),
        storage.open_table(f"{at}/data/config.yaml", "table"),
    ):
        raise AssertionError("opened")


def test_a_live_run_in_a_bucket_is_not_disturbed(at: str, tmp_path: Path, capsys: Capture) -> None:
    out, flags = f"{at}/leased", ("--data", f"{at}/data", "--model", f"{at}/model")
    with hold_lease(storage.resolve(out)):
        assert exit_code(ism, *flags, "--out", out) == 2
        assert re.search(rf"{out}: another run is writing here \(process \d+ on ", line(capsys))
    assert exit_code(prepare, "--sequences", library(tmp_path), "--out", f"{at}/model") == 2  # no job recorded it
    assert re.search(rf"{at}/model: holds .*, which no job recorded", line(capsys))
    assert exit_code(predict, *flags, "--out", f"{at}/data/promoters.parquet") == 2
    assert "is an input of this job" in line(capsys)
    assert not UPath(out).exists()


def library(folder: Path) -> Path:
    """Return a small table of sequences and values."""
    table = pd.DataFrame({"id": ["a", "b"], "sequence": ["ACGT" * 8, "TTGA" * 8], "activity": [0.5, 1.5]})
    table.to_csv(folder / "library.tsv", sep="\t", index=False)
    return folder / "library.tsv"
