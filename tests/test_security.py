"""What docs/security.md promises of files: none runs code, none writes or reads outside its folder."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.files import Command

from promoter import storage
from promoter.checkpoint import ModelInfo, load_model, save_model
from promoter.errors import InputError
from promoter.ism import Scores, load_scores
from promoter.ism.store import write_part
from promoter.models.cnn import CNNConfig, PromoterCNN
from promoter.storage.parts import part_path
from promoter.training import TrainingState

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for room in ("promoter", "jobs") for path in (ROOT / room).rglob("*.py"))
# Modules that make objects of what they read, or code
_UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "skops", "tarfile"}
_UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
_UNSAFE_CALLS = {
    "system",
    "popen",
    "read_pickle",
    "unsafe_load",
    "full_load",
    "load_all",
    "extractall",
    "unpack_archive",
    "add_constructor",
    "add_multi_constructor",
}
_SAFE_LOADERS = {"BaseLoader", "SafeLoader", "CSafeLoader"}


def findings(source: str) -> Iterator[str]:
    """Name what in a module could run what a file says."""
    tree = ast.parse(source)
    safe_loaders = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and _is_safe_loader(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [module] if module else [alias.name for alias in node.names]
            yield from (name for name in names if name.split(".")[0] in _UNSAFE_MODULES)
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if isinstance(node.func, ast.Name) and node.func.id in _UNSAFE_NAMES:
            yield node.func.id
        if _is(given.get("shell"), True):
            yield "shell"
        if not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        if name in _UNSAFE_CALLS:
            yield f"{owner}.{name}"
        if (owner, name) == ("torch", "load") and not _is(given.get("weights_only"), True):
            yield "torch.load"
        if (owner, name) in (("np", "load"), ("numpy", "load")) and not _is(given.get("allow_pickle"), False):
            yield "np.load"
        if (owner, name) == ("yaml", "load"):
            loader = given.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
            own = isinstance(loader, ast.Name) and loader.id in safe_loaders
            if not own and not (isinstance(loader, ast.Attribute) and loader.attr in _SAFE_LOADERS):
                yield "yaml.load"


def _is_safe_loader(of: ast.ClassDef) -> bool:
    """Tell whether a class adds to a safe loader of PyYAML, and to no other: constructors are added by calls."""
    of_yaml = [
        base.attr for base in of.bases if isinstance(base, ast.Attribute) and ast.unparse(base.value) == "yaml"
    ]
    return bool(of_yaml) and set(of_yaml) <= _SAFE_LOADERS


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_unpickles_or_evaluates_files(path: Path) -> None:
    assert not list(findings(path.read_text()))


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "import a, dill as b",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(f)",
        "yaml.load(f, Loader=yaml.UnsafeLoader)",
        "yaml.load(f, yaml.Loader)",
        "class Mine(yaml.Loader): ...\nyaml.load(f, Mine)",
        "class Mine(yaml.SafeLoader, yaml.Loader): ...\nyaml.load(f, Mine)",
        "yaml.load(f, Mine)",
        "yaml.add_constructor(tag, f, Mine)",
        "Mine.add_constructor(tag, f)",
        "yaml.unsafe_load(f)",
        "pd.read_pickle(f)",
        "eval(text)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
        "archive.extractall(x)",
    ],
)
def test_the_scan_for_unsafe_calls_finds_them(line: str) -> None:
    assert list(findings(line))


# --- files that try ----------------------------------------------------------------------------------------------


class _Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """A folder that must not come to be."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    info = ModelInfo(["y"], {"upstream": None, "downstream": None, "length": 50})
    save_model(tmp_path / "model", PromoterCNN(CNNConfig((8,), (7,), ())), info)
    return tmp_path / "model"


def test_the_evil_pickle_runs_code_when_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Evil(tmp_path / "ran")))  # noqa: S301 # else the tests below would show nothing
    assert (tmp_path / "ran").is_dir()


def test_pickled_weights_are_refused_unexecuted(model: Path, mark: Path) -> None:
    load_model(model)
    (model / "model.safetensors").write_bytes(pickle.dumps(_Evil(mark)))
    with pytest.raises(InputError, match="model"):
        load_model(model)


def test_a_pickled_checkpoint_runs_nothing(mark: Path) -> None:
    state = io.BytesIO()
    torch.save({"epoch": _Evil(mark)}, state)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        TrainingState.from_bytes(state.getvalue())


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_yaml_makes_no_objects(model: Path, mark: Path, tag: str, command: Command, tmp_path: Path) -> None:
    evil = f"{tag} [{mark}]"
    (model / "model.yaml").write_text(f"{(model / 'model.yaml').read_text()}\nextra: {evil}\n")
    with pytest.raises(InputError, match=r"model\.yaml"):
        load_model(model)
    (tmp_path / "settings.yaml").write_text(f"data: {evil}\n")
    ended = command("train", "--config", tmp_path / "settings.yaml", "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert "settings.yaml" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["../part-00000.parquet", "/etc/passwd", "scores/../../part-00000.parquet", "part-00000.parquet\n", 3]
)
def test_a_manifest_names_nothing_outside_its_folder(tmp_path: Path, name: object) -> None:
    genes = pd.DataFrame({"gene_id": ["g"], "chrom": ["1"], "start": [0], "end": [4], "strand": ["+"]})
    scores = Scores(genes.assign(sequence="ACGT"), ["y"], np.zeros((1, 1), "f4"), np.zeros((1, 1, 4, 4), "f4"))
    folder = tmp_path / "ism"
    for where in (folder / "scores", tmp_path, folder):
        write_part(part_path(where, 0), scores, {"model": "m", "data": "d"})
    parts = [{"file": "scores/part-00000.parquet", "genes": 1}]
    storage.write_json(folder / "manifest.json", {"complete": True, "parts": parts})
    assert len(load_scores(folder).genes) == 1
    storage.write_json(folder / "manifest.json", {"complete": True, "parts": [{"file": name, "genes": 1}]})
    with pytest.raises(InputError, match=r"own folder|parts\.0\.file: 3 should be a valid string"):
        load_scores(folder)
    assert json.loads((folder / "manifest.json").read_text())["complete"]


def test_the_security_page_makes_the_token_private_which_ray_does_not(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    made = [line.split("#")[0].strip() for line in page.splitlines() if "get-auth-token --generate" in line]
    assert len(made) == 3
    for number, line in enumerate(made):
        home = tmp_path / str(number)
        home.mkdir()
        environment = {
            **os.environ,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        environment.pop("RAY_AUTH_TOKEN", None)
        subprocess.run(["/bin/sh", "-c", f"umask 022; {line}"], env=environment, check=True, capture_output=True)
        token = home / ".ray" / "auth_token"
        assert len(token.read_text()) >= 32
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
