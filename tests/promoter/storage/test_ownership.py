"""Who may write an output: the run that made it, or a new run in an empty place; anybody else is refused."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from promoter import storage
from promoter.errors import InputError, StorageError
from promoter.storage.atomic import partial_tail
from promoter.storage.leases import hold_lease
from promoter.storage.ownership import Output, own_file, own_folder
from promoter.storage.records import RECORD, Record, read_record
from promoter.storage.runs import Run

NAMES = {"train": ("model", "metrics.json"), "ism": ("scores", "manifest.json"), "predict": ()}


def run(job: str = "train", inputs: dict[str, str] | None = None, **settings: object) -> Run:
    return Run(Record(job, {"epochs": 3, **settings}, inputs or {"data": "1"}), {"workers"}, NAMES)


def finish(output: Output) -> None:
    output.begin()
    storage.write_text(output.path / "model" / "model.yaml", "model")
    storage.write_text(output.path / "metrics.json", "{}")
    output.finish()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """The folder of a finished training."""
    with own_folder(tmp_path / "run", run()) as output:
        finish(output)
    return tmp_path / "run"


def test_the_record_lists_every_file_with_its_checksum(done: Path) -> None:
    record = read_record(done / RECORD)
    assert record is not None
    assert record.outputs == {name: storage.sha256(done / name) for name in ("model/model.yaml", "metrics.json")}
    assert sorted(path.name for path in done.iterdir()) == [RECORD, "metrics.json", "model"]  # no lease is left


def test_a_run_before_a_setting_existed_is_resumed_by_what_it_did_and_by_nothing_else(tmp_path: Path) -> None:
    def run_with(**training: object) -> Run:
        return replace(run(training=training), defaults={"training": {"loss": "mse"}})

    with own_folder(tmp_path / "run", run_with(rate=1)) as output:
        finish(output)
    with own_folder(tmp_path / "run", run_with(rate=1, loss="mse")) as output:
        assert output.is_finished("metrics.json", overwrite=False)
    with pytest.raises(InputError, match=r"training\.loss mse, not poisson"):  # noqa: SIM117 # it is refused on entry
        with own_folder(tmp_path / "run", run_with(rate=1, loss="poisson")):
            pass


@pytest.mark.parametrize("changed", [{}, {"workers": 5}])
def test_the_same_run_may_write_again(done: Path, changed: dict[str, Any]) -> None:
    with own_folder(done, run(**changed)) as output:
        assert output.is_finished("metrics.json", overwrite=False)


def a_person(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "config.yaml").write_text("epochs: 3\n")


def another_job(folder: Path) -> None:
    with own_folder(folder, run("ism")) as output:
        output.begin()


def other_settings(folder: Path) -> None:
    with own_folder(folder, run(epochs=4)) as output:
        finish(output)


def other_data(folder: Path) -> None:
    with own_folder(folder, run(inputs={"data": "2"})) as output:
        finish(output)


def a_killed_run(folder: Path) -> None:
    with own_folder(folder, run(epochs=4)) as output:
        output.begin()


def an_earlier_version(folder: Path) -> None:
    folder.mkdir()
    (folder / RECORD).write_text("scores: 3\nprovenance: {versions: {}, inputs: {data: '1'}}\n")


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (a_person, r"holds config.yaml, notes.txt, which no job recorded"),
        (another_job, r"holds the output of promoter ism"),
        (other_settings, r"holds another run \(different: epochs 4, not 3\)"),
        (a_killed_run, r"holds another run \(different: epochs 4, not 3\)"),
        (other_data, r"holds another run \(different: data\)"),
        (an_earlier_version, r"holds a run of an earlier version"),
    ],
)
def test_what_others_have_filled_is_refused_unless_it_is_to_be_overwritten(
    tmp_path: Path, fill: Callable[[Path], None], reason: str
) -> None:
    folder = tmp_path / "out"
    fill(folder)
    before = content(folder)
    with pytest.raises(InputError, match=f"^{folder}: {reason}; choose .*, or `overwrite=True`$"):
        own_folder(folder, run()).__enter__()
    assert content(folder) == before
    with own_folder(folder, run(), overwrite=True) as output:
        assert not output.is_finished("metrics.json", overwrite=True)
        assert set(content(folder)) <= {*before, *lease_names(folder)}
        finish(output)
    kept = {"notes.txt"} & before.keys()
    assert content(folder).keys() == {RECORD, "model/model.yaml", "metrics.json", *kept}
    with own_folder(folder, run()) as output:
        assert output.is_finished("metrics.json", overwrite=False)


def lease_names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob(".lease-*")}


def test_a_run_of_an_earlier_version_is_resumed_by_its_settings(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text("epochs: 3\nprovenance: {versions: {}, inputs: {data: '1'}}\n")
    with own_folder(tmp_path, run()) as output:
        assert not output.is_finished("metrics.json", overwrite=False)
        (tmp_path / "metrics.json").write_text("{}")
        assert output.is_finished("metrics.json", overwrite=False)  # a run without checksums ends with this file
        output.begin()
    record = read_record(tmp_path / RECORD)
    assert record is not None
    assert record.job == "train"


def test_overwriting_removes_no_folder_that_no_job_recorded(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("x")
    with pytest.raises(InputError, match="holds a folder model, which no job recorded; choose another output"):
        own_folder(tmp_path, run(), overwrite=True).__enter__()
    assert content(tmp_path) == {"model/mine": b"x"}


@pytest.mark.parametrize("spelling", ["plain", "symlink", "hard link", "dots"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_an_input_is_refused(done: Path, spelling: str, overwrite: bool) -> None:
    target = done / "metrics.json"
    out = done.parent / "link.json"
    if spelling == "symlink":
        out.symlink_to(target)
    elif spelling == "hard link":
        os.link(target, out)
    else:
        out = target if spelling == "plain" else done / "model" / ".." / "metrics.json"
    before = content(done)
    predict = run("predict", {str(target): "1"})
    with pytest.raises(InputError, match="is an input of this job, or holds one; choose another output"):
        own_file(out, predict, overwrite=overwrite).__enter__()
    assert content(done) == before


def test_what_another_job_reads_is_not_cleared_away(done: Path) -> None:
    ism = run("ism", {str(done / "model"): "1"})
    before = content(done)
    with pytest.raises(InputError, match=f"^{done / 'model'}: is an input of this job, or holds one"):
        own_folder(done, ism, overwrite=True).__enter__()
    assert content(done) == before


def test_names_that_another_run_uses_are_refused_in_its_folder(done: Path) -> None:
    (done / "metrics.json").unlink()  # a name of the job, whether or not the file is there
    with pytest.raises(InputError, match="lies in the output of promoter train under a name that it uses"):
        own_file(done / "metrics.json", run("predict")).__enter__()
    with pytest.raises(InputError, match="lies in the output of promoter train under a name that it uses"):
        own_folder(done / "model" / "ism", run("ism")).__enter__()
    with own_folder(done / "ism", run("ism")) as output:  # any other name is free
        output.begin()


def test_a_run_within_a_run_of_the_same_process_is_its_own(tmp_path: Path) -> None:
    with own_folder(tmp_path / "run", run()) as outer:
        outer.begin()
        with own_folder(outer.path / "model", run(epochs=1)) as inner:
            inner.begin()
    with own_folder(tmp_path / "run" / "model", run(epochs=1)) as again:  # also by a later process
        assert again.earlier is not None


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_a_killed_run_has_cut_off_is_removed(done: Path, is_folder: bool) -> None:
    leftovers = [f".{uuid.uuid4().hex}.partial.metrics.json", f".write-test-{uuid.uuid4().hex}"]
    other = done / "ism"
    with own_folder(other, run("ism")) as output:
        output.begin()
    kept = [done / ".mine", done / "partial.metrics.json", other / leftovers[0]]  # the last is another run's
    for path in [*kept, *(done / name for name in leftovers), done / "model" / leftovers[0]]:
        path.write_text("x")
    owned: AbstractContextManager[Output]
    if is_folder:
        owned = own_folder(done, run())
    else:
        with own_folder(done, run()):
            (done / RECORD).unlink()
        owned = own_file(done / "metrics.json", run("predict"), overwrite=True)
    for path in [done / leftovers[0], done / "model" / leftovers[0]]:
        path.write_text("x")
    with owned:
        pass
    assert all(path.exists() for path in kept)
    assert not (done / leftovers[0]).exists()
    assert (done / "model" / leftovers[0]).exists() != is_folder


def test_what_outlived_a_killed_run_for_a_moment_is_removed_in_the_end(tmp_path: Path) -> None:
    with own_folder(tmp_path / "run", run()) as output:
        finish(output)
        (tmp_path / "run" / "model" / f".{uuid.uuid4().hex}.partial.part-00001.parquet").touch()
    assert sorted(content(tmp_path / "run")) == [RECORD, "metrics.json", "model/model.yaml"]


def test_nothing_of_a_killed_run_is_left_beside_a_file(tmp_path: Path) -> None:
    names = [f"{'x' * 200}.parquet", "a.config.yaml", ".a.parquet.lease-1.json"]  # the first is cut off
    left = [f".{uuid.uuid4().hex}.partial.{partial_tail(name)}" for name in names]
    left.append(f".write-test-{uuid.uuid4().hex}")
    others = [f".{uuid.uuid4().hex}.partial.b.parquet", f".{uuid.uuid4().hex}.partial..b.parquet.lease-1.json"]
    for name in [*left, *others]:
        assert len(name) < 256
        (tmp_path / name).touch()
    with hold_lease(storage.resolve(tmp_path)), own_file(tmp_path / "a.parquet", run("predict")):
        pass  # the probe may be that of a job that writes into this folder
    assert {name for name in left if (tmp_path / name).exists()} == {left[0], left[-1]}
    with own_file(tmp_path / names[0], run("predict")):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


@pytest.mark.parametrize("call", ["unlink", "rmtree"])
@pytest.mark.parametrize("replacing", ["overwritten", "any run"])
def test_a_run_that_is_killed_while_it_clears_the_folder_can_be_repeated(
    done: Path, call: str, replacing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = run(epochs=4) if replacing == "overwritten" else replace(run(epochs=4), may_differ=None)

    def write() -> None:
        with own_folder(done, new, overwrite=replacing == "overwritten") as output:
            finish(output)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(storage.resolve(done)) if call == "unlink" else shutil, call, die)
        with pytest.raises(KeyboardInterrupt):
            write()
    write()
    assert sorted(content(done)) == [RECORD, "metrics.json", "model/model.yaml"]


def test_what_another_user_does_not_let_be_removed_is_named_with_the_fix(
    done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:  # as for any user but root
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(
        StorageError, match=rf"^{done / 'model'}: .* \(Permission denied\); change the permissions"
    ):
        own_folder(done, run(epochs=4), overwrite=True).__enter__()
    assert (done / RECORD).exists()


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_leftover_of_another_user_that_may_not_be_removed_does_no_harm(
    done: Path, is_folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = done / f".{uuid.uuid4().hex}.partial.p.parquet"
    left.touch()
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == left:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with own_folder(done, run()) if is_folder else own_file(done / "p.parquet", run("predict")):
        assert left.exists()


def test_the_figures_of_a_killed_run_are_known_until_others_take_their_place(tmp_path: Path) -> None:
    drawing = replace(run("predict"), may_differ=None)  # the names of its files are known when they are written
    for _ in range(3):
        with own_folder(tmp_path / "figures", drawing) as output:
            assert read_record(tmp_path / "figures" / RECORD) == (output.earlier or None)
            output.begin()
            storage.write_text(output.path / "a.svg", "x")  # killed here


def test_a_file_of_the_same_job_is_replaced_and_anybody_elses_is_not(tmp_path: Path) -> None:
    out = tmp_path / "p.parquet"
    for epochs in (1, 2):
        with own_file(out, run("predict", epochs=epochs), beside=[".metrics.json"]) as output:
            output.begin()
            storage.write_text(out, f"{epochs}")
            output.finish([output.path])
    assert out.read_text() == "2"
    (tmp_path / "q.metrics.json").write_text("mine")
    for name in ("q.parquet", "p.config.parquet"):
        taken = own_file(tmp_path / name, run("predict"), beside=[".metrics.json"])
        if name == "q.parquet":
            with pytest.raises(InputError, match=r"q\.metrics\.json: was not written by predict"):
                taken.__enter__()
        else:
            with taken:
                pass


def test_a_finished_run_that_is_damaged_is_refused_or_made_anew(done: Path) -> None:
    (done / "metrics.json").write_text("{ }")
    with (
        own_folder(done, run()) as output,
        pytest.raises(InputError, match=r"holds a finished run that is damaged \(metrics.json\)"),
    ):
        output.is_finished("metrics.json", overwrite=False)
    with own_folder(done, run(), overwrite=True) as output:
        assert not output.is_finished("metrics.json", overwrite=True)
        assert not content(done).keys() - lease_names(done)


@pytest.mark.parametrize("changed", ["epochs: 3", "'1'", "job: train"])
def test_an_edited_record_is_refused(done: Path, changed: str) -> None:
    record = done / RECORD
    text = record.read_text()
    assert changed in text
    record.write_text(text.replace(changed, {"epochs: 3": "epochs: 4", "'1'": "'2'"}.get(changed, "job: ism")))
    with pytest.raises(InputError, match=f"^{record}: is not what was written"):
        own_folder(done, run(), overwrite=True).__enter__()


def test_a_refused_new_run_leaves_nothing_and_a_resumed_one_stays(tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        with own_folder(folder, run()) as output, output.nothing_if_refused():
            storage.write_text(output.path / "metrics.json", "{}")
            raise InputError("the file is damaged")

    with pytest.raises(InputError, match="the file is damaged"):
        refuse(tmp_path / "deep" / "er")
    assert not list(tmp_path.iterdir())
    with own_folder(tmp_path / "run", run()) as output:
        output.begin()
    with pytest.raises(InputError, match="the file is damaged"):
        refuse(tmp_path / "run")
    assert sorted(content(tmp_path / "run")) == [RECORD, "metrics.json"]


@pytest.mark.parametrize("inputs", [{}, {"data": ""}], ids=["none", "unknown"])
def test_a_run_that_was_killed_before_it_knew_its_inputs_resumes(tmp_path: Path, inputs: dict[str, str]) -> None:
    late = replace(run(), record=replace(run().record, inputs=inputs))
    with own_folder(tmp_path / "run", late) as output:
        output.begin()
    with own_folder(tmp_path / "run", late) as output:
        assert output.earlier is not None
        output.begin({"data": "1"})
    with own_folder(tmp_path / "run", late) as output, pytest.raises(InputError, match="different: data"):
        output.begin({"data": "2"})


def test_inputs_that_are_known_late_are_compared_late(tmp_path: Path) -> None:
    late = run(inputs={"data": ""})
    with own_folder(tmp_path / "run", late) as output:
        output.begin({"data": "1"})
    with own_folder(tmp_path / "run", late) as output:
        output.begin({"moved": "1"})  # another path, the same content
        with pytest.raises(InputError, match=r"different: data"):
            output.begin({"data": "2"})


@pytest.mark.parametrize("own", [own_folder, own_file])
def test_a_store_that_keeps_nothing_is_refused(own: Callable[..., AbstractContextManager[Output]]) -> None:
    with pytest.raises(InputError, match=r"^memory://x: keeps nothing|^memory://x/?: keeps nothing"):
        own("memory://x" if own is own_folder else "memory://x/y", run("predict")).__enter__()


def test_settings_from_a_persons_config_in_the_output_folder_are_kept(tmp_path: Path) -> None:
    config = tmp_path / RECORD
    config.write_text("epochs: 3\n")
    with pytest.raises(InputError, match="the settings were read from it; choose another output"):
        own_folder(tmp_path, replace(run(), config_files=[config]), overwrite=True).__enter__()
    assert config.read_text() == "epochs: 3\n"
