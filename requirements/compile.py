"""Build hook: compiles the core with mypyc into the wheel, when HATCH_BUILD_HOOK_ENABLE_CUSTOM=true.

The wheel then holds each compiled module twice: the extension, which Python prefers, and its source. What is compiled
is all of the core but for its border: see ``INTERPRETED``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CORE = "tailrace/core"
INTERPRETED = {
    "model.py": "frozen values, which cross the pipe to the Kubernetes side: compiled ones cannot be pickled",
    "policy.py": "frozen values",
    "router.py": "tests take its rules away one by one, and a compiled method cannot be replaced",
    "registry.py": "frozen values; changes are rare",
    "drain.py": "frozen values; no request waits for it",
    "exchange.py": "frozen values",
    "explain.py": "for people",
}
CHECKS_ITSELF = "balancer.py"
"""The public class says itself what is wrong with a value; compiled code would raise its own TypeError first."""
_CLASS = re.compile(r"^((?:@.*\n)*class \w+(?!.*(?:Enum|NamedTuple|Protocol)\)))", re.MULTILINE)
_CONSTANT = re.compile(r"^(_?[A-Z][A-Z0-9_]*) = (?!\(.*\)$)", re.MULTILINE)
"""Tuples aside: mypyc 2.4 takes one of floats for a constant that was never set."""
_PUBLIC = re.compile(r"^    def [a-z].*$", re.MULTILINE)
_ARGUMENT = re.compile(r": (?:int|str)\b")
_IMPORTS = "from __future__ import annotations\n"
_MARK = "@mypyc_attr(allow_interpreted_subclasses=True)\n"
_FINAL_IMPORT = "from typing import Final as _Final\n"
_MARK_IMPORT = (
    "from typing import TYPE_CHECKING as _checking\nif _checking:\n    from mypy_extensions import mypyc_attr\n"
)
"""Compiled code does not call the mark, so it does not need the library."""


def modules(package: Path) -> list[Path]:
    """Return the files of the package's core that are compiled."""
    core = package.parent / CORE
    return sorted(path for path in core.rglob("*.py") if path.name not in {*INTERPRETED, "__init__.py"})


def storable(source: str) -> str:
    """Return the source with its classes marked so that a router can still be copied and stored as a whole.

    Otherwise making an object calls ``__init__``, as unpickling must not. mypyc's own mark for that, ``serializable``,
    never calls it at all in 2.4.
    """
    return _CLASS.sub(_MARK + r"\1", source)


def constant(source: str) -> str:
    """Return the source with its constants marked as such: others are looked up by name at every use."""
    return _CONSTANT.sub(r"\1: _Final = ", source)


def unchecked(source: str) -> str:
    """Return the source with arguments of public methods that compiled code takes as they come."""
    return _PUBLIC.sub(lambda line: _ARGUMENT.sub(": Any", line[0]), source)


def prepared(path: Path) -> str:
    """Return what is compiled of a file."""
    source = path.read_text()
    if path.name == CHECKS_ITSELF:
        source = unchecked(source)
    return storable(constant(source)).replace(_IMPORTS, _IMPORTS + _FINAL_IMPORT + _MARK_IMPORT, 1)


class CompileHook(BuildHookInterface[Any]):
    """Adds the extensions to a wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into a folder of its own; nothing is left in the source tree."""
        if version == "editable":
            return
        self._folder = Path(mkdtemp(prefix="tailrace-mypyc-"))
        shutil.copytree(Path(self.root) / "operator" / "tailrace", self._folder / "tailrace")
        subprocess.run([sys.executable, __file__, str(self._folder)], check=True, cwd=self._folder)  # noqa: S603
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"].update(_extensions(self._folder))

    def finalize(self, *_: object) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _extensions(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield where each extension is, and where it belongs in the wheel."""
    for path in folder.rglob("*.so"):
        if "build" not in path.relative_to(folder).parts:
            yield str(path), str(path.relative_to(folder))


def compile_in(folder: Path) -> None:
    """Compile the package below the working folder, extensions beside their sources."""
    from mypyc.build import mypycify  # noqa: PLC0415 - is there only where something is compiled
    from setuptools import Distribution  # noqa: PLC0415

    paths = modules(folder / "tailrace")
    for path in paths:
        path.write_text(prepared(path))
    names = [str(path.relative_to(folder)) for path in paths]
    extensions = mypycify(["--strict", *names], opt_level="3", group_name="tailrace")
    command = Distribution({"name": "tailrace", "ext_modules": extensions}).get_command_obj("build_ext")
    command.inplace = True
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    compile_in(Path(sys.argv[1]))
