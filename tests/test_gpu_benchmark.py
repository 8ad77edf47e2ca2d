"""`benchmarks/gpu.py`, as it will run where a GPU is lent for minutes: with PyTorch, and little else installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import gpu
from promoter.models.cnn import CNNConfig

ROOT = Path(__file__).parents[1]
ABSENT = (
    *("altair", "cyvcf2", "fsspec", "h5py", "jinja2", "jsonargparse", "matplotlib", "optuna", "pooch", "pyarrow"),
    *("pybedtools", "pyfaidx", "ray", "rich", "safetensors", "tangermeme", "upath", "yaml"),
)


def run(*words: object, absent: tuple[str, ...], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with some packages missing, in its own process and those that it starts."""
    hooks = folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {absent!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", "cpu", "--small", *words]
    environment = {**os.environ, "PYTHONPATH": str(hooks)}
    return subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_gpu_benchmark_writes_its_tables_with_pytorch_and_little_else(tmp_path: Path) -> None:
    parts = ["machine", "exactness", "ism", "training", "predict"]
    ended = run("--parts", *parts, "--out", "gpu.json", absent=ABSENT, folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert list(results) == parts
    for name, result in results.items():
        assert result["status"] == "done"
        assert f"\n## {name}\n" in ended.stdout
        for table in result["tables"]:
            assert table["rows"]
            assert f"\n{table['title']}\n" in ended.stdout
            assert all(len(row) == len(table["columns"]) for row in table["rows"] if "no time left" not in row)
    errors = results["exactness"]["tables"][0]
    assert {row[0] for row in errors["rows"]} >= {"published", "small-genome.yaml", "bins", "both strands"}
    assert all(0 < row[2] <= gpu.CONTRACT for row in errors["rows"])
    methods = {row[0]: row[1] for table in results["ism"]["tables"][-3:] for row in table["rows"]}
    assert methods["tangermeme"] == "not installed"
    assert methods["batched passes, bf16, compiled"] > 0


@pytest.mark.slow
def test_pretrained_networks_are_measured_beside_what_the_docs_computed(tmp_path: Path) -> None:
    pytest.importorskip("enformer_pytorch")
    pytest.importorskip("borzoi_pytorch")
    ended = run("--parts", "pretrained", "--out", "gpu.json", absent=(), folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["pretrained"]["tables"][0]["rows"]
    expected = {(row[0], row[1].split(",")[0], row[2]): tuple(row[5:7]) for row in rows}
    for name in ("enformer", "borzoi"):
        for mode in ("forward pass", "lora", "full"):
            for precision in ("fp32", "bf16"):
                assert expected[name, mode, precision] == gpu.computed(name, mode, precision)
                assert all(value > 0 for value in expected[name, mode, precision])  # found in the page


def test_a_failing_part_of_the_gpu_benchmark_shows_its_traceback_and_the_next_one_runs(tmp_path: Path) -> None:
    ended = run("--parts", "predict", "machine", "--out", "gpu.json", absent=(*ABSENT, "pandas"), folder=tmp_path)
    assert ended.returncode == 1
    assert "ModuleNotFoundError: No module named 'pandas'" in ended.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["predict"]["status"] == "failed with exit code 1"
    assert results["machine"]["status"] == "done"
    assert "1 parts done; failed: predict" in ended.stdout


def test_a_part_of_the_gpu_benchmark_that_outlasts_its_budget_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.PARTS, "machine", (gpu.machine, 0))
    assert gpu.run_part("machine", "cpu", small=False)["status"] == "ended after its budget of 0 s"


def test_all_budgets_of_the_gpu_benchmark_are_300_seconds() -> None:
    assert sum(budget for _, budget in gpu.PARTS.values()) == 300


def test_the_small_network_of_the_gpu_benchmark_is_that_of_small_genome_yaml() -> None:
    settings = yaml.safe_load((ROOT / "configs" / "small-genome.yaml").read_text())["model"]
    expected: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    assert CNNConfig(**expected) == gpu.SMALL_GENOME
