"""How long the modules and functions of a folder are: `python -m tests.repo.function_stats operator/tailrace`."""

import ast
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def function_lengths(source: str) -> Iterator[tuple[str, int]]:
    """Yield name and lines of every function, from its `def` to its end, methods and nested ones included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def percentile(lengths: Sequence[int], share: float) -> int:
    """Return the smallest length that at least this share (0..1) of the lengths does not exceed."""
    return sorted(lengths)[max(0, math.ceil(share * len(lengths)) - 1)]


def summary(what: str, named: Sequence[tuple[str, int]]) -> str:
    """Return one line about lengths that have names."""
    lengths = [length for _, length in named]
    name, longest = max(named, key=lambda pair: pair[1])
    middle, high = percentile(lengths, 0.5), percentile(lengths, 0.9)
    return f"{what}: {len(named)}, lines median {middle}, p90 {high}, longest {longest} ({name})"


def report(folder: Path) -> list[str]:
    """Return the statistics of every Python file below the folder."""
    sources = {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.py"))}
    modules = [(name, len(text.splitlines())) for name, text in sources.items()]
    functions = [(f"{name} {fn}", size) for name, text in sources.items() for fn, size in function_lengths(text)]
    return [summary("modules", modules), summary("functions", functions)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in report(Path(sys.argv[1])))
