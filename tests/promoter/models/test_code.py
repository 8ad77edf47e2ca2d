"""A user's code is found, travels as text, and is imported from it wherever a network is built."""

from __future__ import annotations

import importlib
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from promoter.errors import InputError
from promoter.models.code import ModelCode, find_code, importable
from promoter.models.external import build_external


@pytest.fixture(autouse=True)
def own_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder of its own, and leave imports as they were."""
    monkeypatch.chdir(tmp_path)
    path, finders, modules = list(sys.path), list(sys.meta_path), set(sys.modules)
    yield
    sys.path[:], sys.meta_path[:] = path, finders
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("net", "layers", "zoo", "helper", "parts"):
            del sys.modules[name]


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def elsewhere(code: ModelCode, expression: str, folder: Path) -> str:
    """Return what an expression with the loaded function `f` is in another process and folder."""
    folder.mkdir()
    program = (
        "from promoter.models.code import ModelCode\n"
        f"f = ModelCode({code.factory!r}, {code.sha256!r}, {code.sources!r}, {code.packages!r}).load()\n"
        f"print({expression})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_module_travels_with_all_that_it_imports(tmp_path: Path) -> None:
    write("net.py", "from layers import width\ndef make():\n    import helper\n    return width() + helper.MORE\n")
    write("layers.py", "import json, numpy\nimport torch.nn as nn\ndef width():\n    return 4\n")
    write("helper.py", "try:\n    import not_there\nexcept ImportError:\n    pass\nMORE = 3\n")
    write("unrelated.py", "raise RuntimeError('never imported')\n")
    code = find_code("net:make")
    assert set(code.sources) == {"net.py", "layers.py", "helper.py"}
    assert code.packages == {}  # numpy and torch: this package has them everywhere
    assert code.load()() == 7
    assert elsewhere(code, "f()", tmp_path / "other") == "7"


def test_a_package_travels_whole_with_its_relative_imports(tmp_path: Path) -> None:
    write("zoo/__init__.py", "")
    write("zoo/nets/small.py", "from ..parts import PART\ndef make(length=1):\n    return PART * length\n")
    write("zoo/parts.py", "PART = 5\n")
    write("zoo/.hidden/x.py", "")
    code = find_code("zoo.nets.small:make")  # nets has no __init__.py, as Python allows
    assert set(code.sources) == {"zoo/__init__.py", "zoo/nets/small.py", "zoo/parts.py"}
    assert code.load()(length=2) == 10
    assert elsewhere(code, "f(length=3), f.__module__", tmp_path / "other") == "15 zoo.nets.small"


def test_the_checksum_is_that_of_the_code_and_of_nothing_else() -> None:
    write("net.py", "import helper\ndef make():\n    return 1\n")
    write("helper.py", "X = 1\n")
    first = find_code("net:make")
    write("notes.txt", "x")
    write("other.py", "")
    assert find_code("net:make") == first
    write("helper.py", "X = 2\n")
    assert find_code("net:make").sha256 != first.sha256


def test_an_edited_module_is_read_anew_in_the_same_process() -> None:
    write("net.py", "def make():\n    return 1\n")
    assert find_code("net:make").load()() == 1
    write("net.py", "def make():\n    return 22\n")
    assert find_code("net:make").load()() == 22


def test_networks_of_one_name_and_different_code_live_in_one_process() -> None:
    net = "import helper\ndef make():\n    return helper.X\n"
    first, second = (ModelCode("net:make", "", {"net.py": net, "helper.py": f"X = {x}\n"}) for x in (1, 2))
    makers = [first.load(), second.load(), first.load()]
    assert [make() for make in makers] == [1, 2, 1]


def test_imports_within_the_function_are_those_of_its_own_code() -> None:
    net = "from torch import nn\ndef make():\n    from helper import X\n    return nn.Linear(X, 1)\n"
    codes = [ModelCode("net:make", "", {"net.py": net, "helper.py": f"X = {x}\n"}) for x in (1, 2)]
    assert [build_external(code).module.in_features for code in (*codes, codes[0])] == [1, 2, 1]


def test_a_module_that_is_imported_by_other_means_would_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    write("net.py", "import importlib\ndef make():\n    return importlib.import_module('parts').make()\n")
    write("parts.py", "from torch import nn\ndef make():\n    return nn.Linear(2, 1)\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    with pytest.raises(InputError, match="imports parts by other means than an import statement"):
        build_external(find_code("net:make"))


def test_a_byte_order_mark_linked_folders_and_templates_travel(tmp_path: Path) -> None:
    write("zoo/net.py", "\ufefffrom .linked.parts import PART\ndef make():\n    return PART\n")
    write("zoo/template.py", "class {{ name }}:\n")
    write("elsewhere/parts.py", "PART = 3\n")
    Path("zoo/linked").symlink_to(Path("elsewhere").resolve())
    Path("zoo/loop").symlink_to(Path("zoo").resolve())
    code = find_code("zoo.net:make")
    assert elsewhere(code, "f()", tmp_path / "other") == "3"


def test_modules_of_the_process_are_back_afterwards() -> None:
    write("net.py", "X = 'mine'\n")
    sys.path.insert(0, "")
    mine = importlib.import_module("net")
    travelled = ModelCode("net:make", "", {"net.py": "def make():\n    return 'theirs'\n"}).load()
    assert sys.modules["net"] is mine
    assert importlib.import_module("net") is mine
    assert travelled() == "theirs"


def test_an_import_within_a_function_works_later_too() -> None:
    write(
        "net.py",
        "def make():\n    def forward():\n        import helper\n        return helper.X\n    return forward\n",
    )
    write("helper.py", "X = 9\n")
    forward = find_code("net:make").load()()
    Path("helper.py").unlink()
    assert forward() == 9


def test_a_traceback_shows_the_lines_of_the_code() -> None:
    write("net.py", "def make():\n    raise ValueError('no such layer')\n")
    make = find_code("net:make").load()
    with pytest.raises(ValueError, match="no such layer") as raised:
        make()
    shown = "".join(traceback.format_exception(raised.value))
    assert "net.py" in shown
    assert "raise ValueError('no such layer')" in shown


def test_an_installed_package_is_checked_and_does_not_travel() -> None:
    code = find_code("logomaker:Logo")
    assert code.sources == {}
    assert code.load().__name__ == "Logo"
    other = ModelCode(code.factory, "0" * 64, {}, code.packages)
    with pytest.raises(InputError, match="installed with other code here"):
        other.load()


def test_what_is_installed_must_have_the_same_version() -> None:
    write("net.py", "import yaml, iniconfig\ndef make():\n    return 1\n")  # of tests alone, and of this package
    code = find_code("net:make")
    assert list(code.packages) == ["iniconfig"]
    with pytest.raises(InputError, match=r"goes with iniconfig 0.0.1, here is"):
        ModelCode(code.factory, code.sha256, code.sources, {"iniconfig": "0.0.1"}).load()
    with pytest.raises(InputError, match=r"needs not-there 1.0, which is not installed here"):
        ModelCode(code.factory, code.sha256, code.sources, {"not-there": "1.0"}).load()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("net", "write it as package.module:function"),
        ("net:make()", "write it as package.module:function"),
        ("../net:make", "write it as package.module:function"),
        (":make", "write it as package.module:function"),
        ("absent:make", "no module absent in"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(factory: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_code(factory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "net has no function make"),
        ("make = 3\n", "net has no function make"),
        ("import absent_library\n", "cannot be imported .ModuleNotFoundError: No module named 'absent_library'"),
        ("raise RuntimeError('needs a licence')\n", "cannot be imported .RuntimeError: needs a licence"),
        ("def make(:\n", "cannot be imported .SyntaxError"),
    ],
)
def test_code_that_cannot_be_imported_is_refused_in_a_line(text: str, message: str) -> None:
    write("net.py", text)
    with pytest.raises(InputError, match=message) as raised:
        find_code("net:make").load()
    assert "\n" not in str(raised.value)
    assert "net" not in sys.modules


def test_code_too_large_to_travel_is_refused_with_the_fix() -> None:
    write("net.py", "import helper\n")
    write("helper.py", "#" * (1 << 20))
    with pytest.raises(InputError, match="install the package on all nodes"):
        find_code("net:make")


def test_files_beside_the_code_do_not_travel_and_are_missed_at_once() -> None:
    write("net.py", "from pathlib import Path\nTEXT = (Path(__file__).parent / 'net.json').read_text()\n")
    write("net.json", "{}")
    with pytest.raises(InputError, match="FileNotFoundError"):
        find_code("net:make").load()


def test_nothing_is_imported_while_code_is_found() -> None:
    write("net.py", "from pathlib import Path\nPath('ran').touch()\ndef make():\n    return 1\n")
    code = find_code("net:make")
    assert not Path("ran").exists()
    with importable(code.sources):
        assert not Path("ran").exists()
    code.load()
    assert Path("ran").exists()
