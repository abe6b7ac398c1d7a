"""Runs the benchmarks: `python -m bench [NAME...] [--OPTION...]`. A benchmark is a program of this folder that prints.

Each runs in a process of its own, so that none measures what another left behind; what it prints is shown as it comes
and kept in results/NAME.txt, below a line about the machine.
"""

import ast
import os
import platform
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
JOBS_OF_THEIR_OWN = frozenset({"routing", "simulated", "soak", "strategies"})
"""Run only when they are named: they take long."""


def names() -> list[str]:
    """Return every benchmark there is: the modules that can be run, this one aside."""
    programs = (path.stem for path in FOLDER.glob("*.py") if '\nif __name__ == "__main__":' in path.read_text())
    return sorted(set(programs) - {"__main__"})


def machine() -> str:
    """Return what matters of this machine in words; nothing that says whose it is."""
    cores = len(os.sched_getaffinity(0))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{cores} cores, {platform.machine()}, {platform.system()}, {python}"


def run(name: str, options: list[str]) -> bool:
    """Run one benchmark; its result file is replaced only when it succeeds."""
    print(f"== {name}", flush=True)
    command = [sys.executable, "-u", "-m", f"bench.{name}", *options]
    lines = [f"{machine()}\n", "\n"]
    with subprocess.Popen(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode != 0:
        print(f"bench: {name} failed; results/{name}.txt is as it was", file=sys.stderr)
        return False
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.txt").write_text("".join(lines))
    return True


def told(name: str) -> str:
    """Return what a benchmark says of itself, and its options if it has some."""
    program = (FOLDER / f"{name}.py").read_text()
    if "ArgumentParser(" in program:
        command = [sys.executable, "-m", f"bench.{name}", "--help"]
        return subprocess.run(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True, check=True).stdout
    return f"{ast.get_docstring(ast.parse(program)) or name}\n\nIt has no options.\n"


def overview() -> str:
    """Return what can be run, a line each."""
    first = {name: (ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())) or "") for name in names()}
    return "\n".join([__doc__, *(f"  {name:<12}{text.partition(chr(10))[0]}" for name, text in first.items())])


def main(arguments: list[str]) -> int:
    """Run the benchmarks named, or all, with the options that follow the names; return the exit code."""
    wanted = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = arguments[len(wanted) :]
    unknown = set(wanted) - set(names())
    if unknown:
        print(f"bench: no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(names())}", file=sys.stderr)
        return 2
    if {"-h", "--help"} & set(options):
        print("\n".join(told(name) for name in wanted) or overview())
        return 0
    failures = sum(not run(name, options) for name in wanted or sorted(set(names()) - JOBS_OF_THEIR_OWN))
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
