"""`promoter verify` names each file that is damaged or lost, with the command that repairs it."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
from support.commands import outcome

from jobs.ism import ism
from jobs.predict import predict
from jobs.verify import verify

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def made(run: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and a training, copied; scores and predictions, written."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(data, folder / "data", ignore=shutil.ignore_patterns("genome"))
    shutil.copytree(run, folder / "run")
    model, table = str(run / "model"), str(data)
    ism(model, table, str(folder / "ism"), split="test", genes_per_task=20)
    predict(model, table, str(folder / "predictions.parquet"))
    return folder


def files_in(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def test_what_is_intact_is_counted_and_left_alone(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_in(made)
    visible = [path for path in before if not path.name.startswith(".")]
    assert outcome(capsys, verify, made) == (
        0,
        f"{made}: {len(visible)} files intact, 0 damaged or missing\n",
        "",
    )
    assert files_in(made) == before
    for path in visible:
        assert outcome(capsys, verify, path)[:2] == (0, f"{path}: 1 file intact, 0 damaged or missing\n")


REPAIRS = {
    "data": "promoter prepare --config {made}/data/config.yaml --out {made}/data",
    "run": "promoter train --config {made}/run/config.yaml --out {made}/run --overwrite true",
    "ism": "promoter ism --config {made}/ism/config.yaml",
    "predictions": "promoter predict --config {made}/predictions.config.yaml",
}


def test_each_damaged_or_missing_file_is_named_with_the_command_that_repairs_it(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in [path for path in files_in(made) if not path.name.startswith(".")]:
        whole = path.read_bytes()
        name = str(path.relative_to(made)).split("/")[0].split(".")[0]
        is_record = path.name.endswith("config.yaml")
        for damage in (lambda path=path: flip(path, 0.5), path.unlink):
            damage()
            code, printed, _ = outcome(capsys, verify, made)
            lines = printed.splitlines()
            if not path.exists() and is_record:  # nothing then tells that it was there
                path.write_bytes(whole)
                continue
            assert code == 1, path
            assert len(lines) == 2, printed
            assert lines[0].startswith(f"{path}: is ")
            fix = "copy it again from its source, or run its job again" if is_record else REPAIRS[name]
            assert fix.format(made=made) in lines[0]
            assert "1 damaged or missing" in lines[1]
            path.write_bytes(whole)


def test_a_model_folder_that_was_copied_alone_is_checked(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(made / "run" / "model", model)
    count = len(list(model.iterdir()))
    assert outcome(capsys, verify, model) == (0, f"{model}: {count} files intact, 0 damaged or missing\n", "")
    for path in sorted(model.iterdir()):
        whole = path.read_bytes()
        flip(path, 0.7)
        code, printed, _ = outcome(capsys, verify, model)
        assert code == 1
        assert f"{path}: " in printed
        assert "again" in printed.splitlines()[0]
        path.write_bytes(whole)


def test_a_file_that_may_not_be_read_is_named_with_the_fix(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> str:  # as for any user but root
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("promoter.storage.sha256", refuse)
    code, printed, error = outcome(capsys, verify, made / "data")
    assert (code, error) == (1, "")
    for name in ("promoters.parquet", "summary.json"):
        line = f"{made / 'data' / name}: may not be read (Permission denied); change its permissions"
        assert line in printed.splitlines()


def test_a_folder_that_no_job_wrote_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "numbers.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "settings.yaml").write_text("a: 1\n")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "numbers.json"):
        code, _, error = outcome(capsys, verify, path)
        assert code == 2
        assert error == f"error: {path}: has no checksums; no job wrote it, or one of an earlier version did\n"


def test_files_of_earlier_versions_are_counted_apart(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "run" / "model", tmp_path / "model")
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "mine.txt").write_text("hello")
    code, printed, _ = outcome(capsys, verify, tmp_path)
    assert code == 0
    assert "0 damaged or missing; 2 without checksum: of an earlier version" in printed
