"""Analyses Python modules: one run for each file.

Some runs fail on purpose, so that there are retries to look at.
"""

import ast
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runwell import RunContext, logger, task

#: One in so many modules can't be read in the first attempt.
FLAKY_ONE_IN = 12

_DECISIONS = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.Assert,
    ast.comprehension,
    ast.match_case,
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class Module:
    """What is to be analysed: a module's name and its file."""

    name: str
    path: str


@dataclass
class Analysis:
    """What was found. `complexity` is that of the most complex function, which is named."""

    module: str
    lines: int
    functions: int
    classes: int
    complexity: int
    most_complex: str


@task(id="analyse-module")
def analyse_module(module: Module, ctx: RunContext) -> Analysis:
    """Parse a file, count what is in it, and measure how complex its functions are."""
    logger.info("reading", module=module.name, attempt=ctx.attempt.number)
    if ctx.attempt.number == 1 and is_flaky(module.name):
        raise ConnectionError(f"the disk of {module.name} does not answer (on purpose)")
    source = Path(module.path).read_text(encoding="utf-8", errors="replace")
    tree = ast.parse(source, filename=module.path)
    measured = sorted(
        ((complexity(function), function.name) for function in functions(tree)), reverse=True
    )
    worst, name = measured[0] if measured else (0, "")
    logger.info("parsed", module=module.name, functions=len(measured))
    print(f"{module.name}: the most complex function is {name or 'none'} ({worst})")
    return Analysis(
        module=module.name,
        lines=source.count("\n"),
        functions=len(measured),
        classes=sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree)),
        complexity=worst,
        most_complex=name,
    )


def is_flaky(name: str) -> bool:
    """Whether the first attempt for a module fails: the same ones each time."""
    return zlib.crc32(name.encode()) % FLAKY_ONE_IN == 0


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS))


def complexity(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The number of ways through a function, after McCabe: its decisions, and one."""
    ways = 1
    for node in ast.walk(function):
        if isinstance(node, _DECISIONS):
            ways += 1
        elif isinstance(node, ast.BoolOp):
            ways += len(node.values) - 1
    return ways
