"""Writes docs/reference/python-api.md from the public names themselves; a test checks it.

Run it after a change of a public name or its docstring: `python docs/write_reference.py`.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast, is_typeddict

import runwell

PAGE = Path(__file__).parent / "reference/python-api.md"

INTRODUCTION = """\
# Python API

<!-- Written by docs/write_reference.py from the public names: change those, not this. -->

Every name here is imported from `runwell`. `runwell.sync` has the same functions for callers that
block, and a task has them as `hello.sync`. Where a length of time is taken, it is a `timedelta`,
seconds, or a text such as `"10m"`. [TypeScript names](typescript-names.md) are mapped to these.
"""


def write() -> str:
    """The whole page."""
    options: dict[str, type] = {}
    parts = [INTRODUCTION]
    for name in sorted(runwell.__all__, key=lambda name: (name.lower(), name)):
        if not name.startswith("__"):
            parts.extend(_name(name, getattr(runwell, name), options))
    parts.append("## Options of calls\n")
    parts.append("What stands above as `**options` are these, by their names.\n")
    for name in sorted(options):
        parts.extend(_options(name, options[name]))
    return "\n".join(parts)


def _name(name: str, value: object, options: dict[str, type]) -> Iterator[str]:
    yield f"## `{name}`\n"
    if inspect.isclass(value):
        yield from _class(cast("type", value), options)
        return
    if inspect.isroutine(value):
        yield from _function(name, cast("Callable[..., object]", value), options)
        return
    yield from _document(type(value))
    yield from _members(name, cast("type", type(value)), options)


def _class(kind: type, options: dict[str, type]) -> Iterator[str]:
    bases = [base.__name__ for base in kind.__bases__ if base.__name__ in runwell.__all__]
    if bases:
        yield f"A kind of {', '.join(f'`{base}`' for base in bases)}.\n"
    yield from _document(kind)
    fields = [
        f"`{name}: {text}`"
        for name, text in _fields(kind).items()
        if not name.startswith("_") and "ClassVar" not in text
    ]
    if fields:
        yield f"Fields: {', '.join(fields)}.\n"
    if BaseException not in kind.__mro__:
        yield from _members(kind.__name__, kind, options)


def _fields(kind: type) -> dict[str, str]:
    """The annotated fields as they are written."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("runwell"):
            tree = _tree(base)
            assert isinstance(tree, ast.ClassDef)
            for node in tree.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found[node.target.id] = _plain(ast.unparse(node.annotation))
    return found


def _members(owner: str, kind: type, options: dict[str, type]) -> Iterator[str]:
    for name in dir(kind):
        member = cast("object", inspect.getattr_static(kind, name))
        # Flows are what both kinds of caller drive: not for users.
        if name.startswith("_") or name.endswith("_flow") or not _is_ours(kind, name):
            continue
        if isinstance(member, classmethod | staticmethod):
            member = cast("object", getattr(kind, name))
            member = getattr(member, "__func__", member)
        if inspect.isfunction(member):
            yield from _function(f"{owner}.{name}", member, options)
        elif member.__doc__ and hasattr(member, "__get__"):
            yield f"**`{owner}.{name}`**: {inspect.cleandoc(member.__doc__)}\n"
        elif type(member).__module__.startswith("runwell"):
            yield from _members(f"{owner}.{name}", cast("type", type(member)), options)


def _is_ours(kind: type, name: str) -> bool:
    return any(name in vars(base) for base in kind.__mro__ if base.__module__.startswith("runwell"))


def _function(
    name: str, function: Callable[..., object], options: dict[str, type]
) -> Iterator[str]:
    tree = _tree(function)
    assert isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef)
    for arguments in (tree.args.posonlyargs, tree.args.args):
        arguments[:] = [one for one in arguments if one.arg not in ("self", "cls")]
    result = f" -> {_plain(ast.unparse(tree.returns))}" if tree.returns else ""
    prefix = "await " if isinstance(tree, ast.AsyncFunctionDef) else ""
    yield f"```text\n{prefix}{name}({_plain(ast.unparse(tree.args))}){result}\n```\n"
    names = cast("dict[str, Any]", inspect.unwrap(function).__globals__)
    for found in re.findall(r"Unpack\[(\w+)\]", ast.unparse(tree.args)):
        if is_typeddict(names.get(found)):
            options[found] = names[found]
    yield from _document(function)


def _options(name: str, kind: type) -> Iterator[str]:
    yield f"### `{name}`\n"
    yield from _document(kind)
    rows = [f"| `{field}` | `{text}` |" for field, text in _fields_of_dict(kind).items()]
    yield "\n".join(["| option | type |", "| --- | --- |", *rows]) + "\n"


def _fields_of_dict(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in (*getattr(kind, "__orig_bases__", ()), kind):
        if is_typeddict(base):
            if base is not kind:
                found.update(_fields_of_dict(base))
            tree = _tree(base)
            assert isinstance(tree, ast.ClassDef)
            for node in tree.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    text = _plain(ast.unparse(node.annotation))
                    found[node.target.id] = text.replace("|", "\\|")
    return found


def _tree(value: type | Callable[..., object]) -> ast.stmt:
    source = inspect.getsource(value if isinstance(value, type) else inspect.unwrap(value))
    return ast.parse(textwrap.dedent(source)).body[0]


def _plain(text: str) -> str:
    """An annotation without its quotes."""
    return text.strip("'\"") if text.startswith(("'", '"')) else text


def _document(value: object) -> Iterator[str]:
    """The docstring, with its example as a block of its own."""
    text = inspect.getdoc(value) or ""
    before, _, example = text.partition("Example:\n")
    if before.strip():
        yield before.strip() + "\n"
    if example:
        yield f"```pycon\n{textwrap.dedent(example).rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
    print(f"wrote {PAGE}")
