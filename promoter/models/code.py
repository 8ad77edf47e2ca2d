"""The Python code of a network that is not of this package: found, checksummed, and imported elsewhere from text.

Modules that are not installed travel as text with the network's description, those that they import included, and
are imported from it in every process, the first one too: what is left out fails at once and not on the last node.
Of what is installed the versions are kept, and a process that has others refuses to run the network.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import site
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from promoter.errors import InputError

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_OWN = ("promoter", "jobs")  # on every node, and of the version that the description names
_MAX_BYTES = 1 << 20  # of all modules: they are read with each description
_INSTALL = "install the package on all nodes, and it need not travel"


@dataclass(frozen=True)
class ModelCode:
    """The code of a network.

    Attributes:
        factory: `package.module:function`, the function that returns the network.
        sha256: checksum of the modules that travel; where the factory's package is installed, of that package.
        sources: path of each module that travels, such as `package/module.py` -> its text.
        packages: installed distribution that these import -> its version.
    """

    factory: str
    sha256: str
    sources: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)

    def load(self) -> Callable[..., Any]:
        """Import the factory.

        Raises:
            InputError: an installed package is missing or of another version, or the import fails.
        """
        for name, version in self.packages.items():
            try:
                found = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                raise InputError(f"{self.factory}: needs {name} {version}, which is not installed here") from None
            if found != version:
                raise InputError(
                    f"{self.factory}: goes with {name} {version}, here is {found}; install the same version"
                )
        if not self.sources and (found := _installed_checksum(_package(self.factory))) != self.sha256:
            raise InputError(
                f"{self.factory}: its package is installed with other code here (SHA-256 {found[:8]}… instead of "
                f"{self.sha256[:8]}…); install the same version"
            )
        module, _, function = self.factory.partition(":")
        with importable(self.sources):
            try:
                loaded = getattr(importlib.import_module(module), function, None)
            except Exception as error:  # whatever the code raises when it is imported
                raise InputError(f"{self.factory}: cannot be imported ({reason_of(error)})") from error
            if not callable(loaded):
                raise InputError(f"{self.factory}: {module} has no function {function}")
        return loaded


def find_code(factory: str) -> ModelCode:
    """Find the code of a network: modules in the working directory or on the import path, or an installed package.

    Args:
        factory: `package.module:function`.

    Raises:
        InputError: it is not of that form, there is no such module, or the modules are too large to travel.
    """
    if not _FACTORY.fullmatch(factory):
        raise InputError(f"{factory!r} names no code; write it as package.module:function")
    top, here = _package(factory), os.getcwd()  # noqa: PTH109 # an entry of sys.path is text
    path = list(sys.path)
    sys.path.insert(0, here)  # as for `python -m`; a console command does not have it
    try:
        importlib.invalidate_caches()  # a module may have been written a moment ago
        if (spec := _spec(top)) is None:
            raise InputError(
                f"{factory}: there is no module {top} in {here} nor on the import path; start the job where it "
                "lies, set PYTHONPATH, or install it"
            )
        if top in _OWN or _is_installed(spec):
            return ModelCode(factory, _installed_checksum(top), packages=_distributions([top]))
        return _collect(factory)
    finally:
        sys.path[:] = path  # or later imports of ours could find files of the user's


def _collect(factory: str) -> ModelCode:
    """Read the modules that travel, from the factory's on."""
    top = _package(factory)
    sources: dict[str, str] = {}
    installed: set[str] = set()
    waiting, seen = [top], {top}
    while waiting:
        name = waiting.pop()
        spec = _spec(name)
        if spec is None or spec.origin in ("built-in", "frozen"):
            continue  # an import that may fail, in a `try`
        if _is_installed(spec):
            installed.add(name)
            continue
        texts = _texts(_files(spec, name), factory)
        sources |= texts
        for imported in {name for text in texts.values() for name in _imported(text)} - seen:
            seen.add(imported)
            if imported not in sys.stdlib_module_names and imported not in _OWN:
                waiting.append(imported)
    if (size := sum(map(len, sources.values()))) > _MAX_BYTES:
        raise InputError(f"{factory}: it and the modules that it imports hold {size:,} letters; {_INSTALL}")
    return ModelCode(factory, _checksum(sources), dict(sorted(sources.items())), _distributions(sorted(installed)))


@contextmanager
def importable(sources: Mapping[str, str]) -> Iterator[None]:
    """Within it, and as far as possible after it, modules are imported from their text.

    Where the process has other modules of the same names, those are back afterwards, and the network keeps its
    own: two networks with different code under one name can be in one process.

    Args:
        sources: path of each module -> its text, as `ModelCode` has them.
    """
    finder = _Finder(sources)
    if not sources or any(finder == other for other in sys.meta_path):
        yield
        return
    names = {path.partition("/")[0].removesuffix(".py") for path in sources}
    others = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}
    for name in others:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    except BaseException:
        _forget(finder, names)
        raise
    finally:
        if others:
            _forget(finder, names)
            sys.modules.update(others)


def _forget(finder: _Finder, names: set[str]) -> None:
    if finder in sys.meta_path:
        sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]


class _Finder(MetaPathFinder, InspectLoader):
    """Imports modules from their text."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = dict(sources)
        self.folder = f"code-{_checksum(sources)[:8]}"  # in tracebacks

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Finder) and self.sources == other.sources

    def __hash__(self) -> int:
        return hash(self.folder)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of these, or a folder of some without a module of its own."""
        if (file := self._file(fullname)) is not None:
            spec = ModuleSpec(
                fullname, self, origin=f"{self.folder}/{file}", is_package=file.endswith("__init__.py")
            )
            spec.has_location = True
            return spec
        inside = fullname.replace(".", "/") + "/"
        known = any(name.startswith(inside) for name in self.sources)
        return ModuleSpec(fullname, None, is_package=True) if known else None

    def get_source(self, fullname: str) -> str:
        """Return the text of a module, also for tracebacks."""
        file = self._file(fullname)
        if file is None:
            raise ImportError(f"no module {fullname}")
        return self.sources[file]

    def get_code(self, fullname: str) -> Any:
        """Compile a module under the path that tracebacks show."""
        return self.source_to_code(self.get_source(fullname), f"{self.folder}/{self._file(fullname)}")

    def is_package(self, fullname: str) -> bool:
        """Tell whether a module is a package."""
        return (self._file(fullname) or "").endswith("__init__.py")

    def _file(self, fullname: str) -> str | None:
        base = fullname.replace(".", "/")
        return next((file for file in (f"{base}/__init__.py", f"{base}.py") if file in self.sources), None)


def stray_modules(before: Collection[str]) -> list[str]:
    """Return the modules imported since that are neither installed nor from text: those that would not travel.

    Args:
        before: names in `sys.modules` before.
    """
    strays = []
    for name in set(sys.modules) - set(before):
        spec = getattr(sys.modules[name], "__spec__", None)
        if not isinstance(spec, ModuleSpec) or isinstance(spec.loader, _Finder) or name.partition(".")[0] in _OWN:
            continue
        if spec.origin and spec.origin.endswith(".py") and not _is_installed(spec):
            strays.append(name)
    return sorted(strays)


def _package(factory: str) -> str:
    return factory.partition(":")[0].partition(".")[0]


def _spec(name: str) -> ModuleSpec | None:
    """Find a module on disk, also where the process has imported it from text."""
    for finder in sys.meta_path:
        if not isinstance(finder, _Finder) and (spec := finder.find_spec(name, None)) is not None:
            return spec
    return None


def _folders(spec: ModuleSpec) -> list[Path]:
    """Return the folders of a package; none for a module that is one file."""
    return [Path(folder).resolve() for folder in spec.submodule_search_locations or []]


def _is_installed(spec: ModuleSpec) -> bool:
    places = _folders(spec) or ([Path(spec.origin).resolve()] if spec.origin else [])
    return any(root in place.parents for place in places for root in _installed_roots())


@functools.cache
def _installed_roots() -> list[Path]:
    """Return the folders that packages are installed into, and those of the standard library."""
    kinds = ("purelib", "platlib", "stdlib", "platstdlib")
    named = [sysconfig.get_paths()[kind] for kind in kinds] + [site.getusersitepackages()]
    named += [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return [Path(folder).resolve() for folder in dict.fromkeys(named)]


def _files(spec: ModuleSpec, name: str) -> dict[str, Path]:
    """Return the Python files of a module or package, by their path as an import has it."""
    if not _folders(spec):
        return {f"{name}.py": Path(spec.origin)} if spec.origin else {}
    files, seen = {}, set()
    for folder in _folders(spec):
        for place, inner, names in os.walk(folder, followlinks=True):
            here = Path(place)
            # a link to a folder above would never end
            inner[:] = [one for one in inner if not one.startswith(".") and (here / one).resolve() not in seen]
            seen.update((here / one).resolve() for one in inner)
            inside = here.relative_to(folder)
            for file in sorted(names):
                if file.endswith(".py") and not file.startswith("."):
                    files[f"{name}/{(inside / file).as_posix()}"] = here / file
    return files


def _texts(files: Mapping[str, Path], factory: str) -> dict[str, str]:
    """Read files that travel."""
    size = sum(path.stat().st_size for path in files.values())
    if size > _MAX_BYTES:
        first = next(iter(files)).partition("/")[0]
        raise InputError(f"{factory}: {first} holds {size:,} bytes of Python, too much to travel; {_INSTALL}")
    try:
        return {name: path.read_text(encoding="utf-8-sig") for name, path in files.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{factory}: a module cannot be read ({reason_of(error)})") from error


def _imported(text: str) -> set[str]:
    """Return the names of the packages that a module imports, anywhere in it."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a template, say; where it matters, its import fails
        return set()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _distributions(packages: Sequence[str]) -> dict[str, str]:
    """Return the distributions that packages are installed by, and their versions.

    Those that this package needs are left out: it knows their versions, and torch's may differ between a node with
    a GPU and one without.
    """
    known = _known_packages() if packages else {}
    names = {name for package in packages if package not in _OWN for name in known.get(package, [])}
    required = {
        _normalized(re.split(r"[^\w.-]", line)[0]) for line in importlib.metadata.requires("promoter") or []
    }
    return {name: importlib.metadata.version(name) for name in sorted(names) if _normalized(name) not in required}


@functools.cache
def _known_packages() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()  # reads the metadata of all that is installed


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def _installed_checksum(package: str) -> str:
    spec = _spec(package)
    if spec is None:
        raise InputError(f"{package}: is not installed here; {_INSTALL.partition(',')[0]}")
    files = _files(spec, package).items()
    return _checksum({name: path.read_text(encoding="utf-8", errors="replace") for name, path in files})


def _checksum(sources: Mapping[str, str]) -> str:
    of_files = [f"{path} {hashlib.sha256(text.encode()).hexdigest()}\n" for path, text in sorted(sources.items())]
    return hashlib.sha256("".join(of_files).encode()).hexdigest()


def reason_of(error: BaseException) -> str:
    """Return the type and message of an error of foreign code, in a line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
