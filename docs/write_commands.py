"""Writes docs/reference/cli.md from the commands themselves; a test checks that it is current.

Run it after a change of a command: `python docs/write_commands.py`.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from runwell.cli.main import main

PAGE = Path(__file__).parent / "reference/cli.md"

INTRODUCTION = """\
# Commands

<!-- Written by docs/write_commands.py from the commands themselves: change those, not this. -->

`pip install "runwell[cli]"` brings the command `runwell`; `runwell server` and `runwell dev` need
`runwell[server]` too. Every command has `--help`.

**Which server.** Commands talk to the server of `TRIGGER_API_URL` and `TRIGGER_SECRET_KEY`. Without
these they find the local server by the nearest `.runwell` folder, from the current one upward.

**For programs.** With `--json` a command prints JSON to standard output and nothing else there.
Errors go to standard error, as a sentence or as `{"error": "..."}`.

**Exit status.** 0 when it worked, 1 when it didn't, 2 for a command line that can't be understood,
130 after Ctrl-C. Commands that follow a run end with 0 if the run is `COMPLETED`, else with 1.
"""


def write() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for name, command in list_commands():
        parts.append(f"## `{name}`\n")
        parts.extend(_section(name, command))
    return "\n".join(parts)


def list_commands() -> list[tuple[str, click.Command]]:
    """Every command with its full name, groups before what is in them."""
    return list(_walk("runwell", main))


def _walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for sub, found in command.commands.items():
            yield from _walk(f"{name} {sub}", found)


def _section(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{name} {usage}\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    rows = [row for parameter in command.params for row in _row(parameter)]
    if rows:
        head = ["| option | meaning | default |", "| --- | --- | --- |"]
        yield "\n".join([*head, *rows]) + "\n"
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.strip()]
    examples = [line for line in examples if "runwell " in line]
    if examples:
        plain = [re.sub(r" {3,}", "  # ", line.removeprefix("Example: ")) for line in examples]
        shown = [f"$ {line}" for line in plain]
        yield "\n".join(["```console", *shown, "```"]) + "\n"


def _row(parameter: click.Parameter) -> Iterator[str]:
    if isinstance(parameter, click.Option) and not parameter.hidden:
        names = [f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts)]
        meaning, default = _split_default(parameter)
        yield f"| {', '.join(names)}{_kind(parameter)} | {meaning} | {default} |"


def _kind(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice):
        return f" {' or '.join(f'`{choice}`' for choice in option.type.choices)}"
    metavar = option.metavar or option.type.name.upper().removesuffix(" RANGE")
    return f" {metavar}".replace("|", "\\|")


def _split_default(option: click.Option) -> tuple[str, str]:
    meaning, _, default = (option.help or "").partition("[default: ")
    if "--mode" in option.opts:
        return meaning, "`fork`; `spawn` on macOS"
    if default:
        return meaning.strip(), default.rstrip("] ")
    if isinstance(option.show_default, str):
        return meaning, option.show_default
    has_default = option.show_default and option.default is not None
    return meaning, f"`{option.default}`" if has_default else ""


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
    print(f"wrote {PAGE}")
