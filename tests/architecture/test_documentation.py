"""The documentation knows every setting, option, route, status and error code, and no dead path."""

import inspect
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runwell.cli.main import main
from runwell.core.errors import ErrorCode, InternalError
from runwell.core.statuses import TRANSITIONS, ExecutionStatus, RunEvent, RunStatus
from runwell.engine.retrying import decide_failure
from runwell.sdk.config import define_config
from runwell.sdk.hooks import HookOptions
from runwell.server.access import ACCESS
from runwell.server.application import OPERATIONS
from runwell.server.routes import openapi
from tests.architecture.tree import DOCS, PACKAGE, REFERENCE, ROOT, list_modules, read_reference

_SETTING = re.compile(r"\b(?:RUNWELL_[A-Z_]+|TRIGGER_[A-Z_]+|DATABASE_URL)\b")
_PATH = re.compile(r"`((?:core|client|sdk|worker|server|engine|cli|src|tests|docs)/[\w./-]*)`")
_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#]+)?(?:#([^)]*))?\)")

PAGES = sorted(
    [*DOCS.rglob("*.md"), *PACKAGE.rglob("adr/*.md"), *ROOT.glob("*.md")],
    key=lambda path: path.as_posix(),
)


def show_page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read_page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_the_picture_of_the_lifecycle_is_current() -> None:
    drawn = runpy.run_path(str(DOCS / "draw_lifecycle.py"))["draw"]()
    assert (DOCS / "run-lifecycle.md").read_text(encoding="utf-8") == drawn, (
        "run: python docs/draw_lifecycle.py"
    )


def test_the_page_of_commands_is_current() -> None:
    written = runpy.run_path(str(DOCS / "write_commands.py"))["write"]()
    assert (REFERENCE / "cli.md").read_text(encoding="utf-8") == written, (
        "run: python docs/write_commands.py"
    )


def test_the_page_of_who_may_call_what_is_current() -> None:
    written = runpy.run_path(str(DOCS / "write_access.py"))["write"]()
    assert (REFERENCE / "access.md").read_text(encoding="utf-8") == written, (
        "run: python docs/write_access.py"
    )


def test_every_operation_says_who_may_call_it() -> None:
    served = (*OPERATIONS, *openapi.make_operations(OPERATIONS))
    names = {operation.name for operation in served}
    assert names == ACCESS.keys(), (
        f"server/access.py lacks {names - ACCESS.keys()}, and has {ACCESS.keys() - names} in vain"
    )


def test_every_path_in_the_architecture_page_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(_PATH.findall(text))
    assert len(named) > 10
    missing = {
        path for path in named if not (PACKAGE / path).exists() and not (ROOT / path).exists()
    }
    assert not missing


def test_the_architecture_page_fits_two_pages() -> None:
    lines = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130


@pytest.mark.parametrize("page", PAGES, ids=show_page)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{show_page(page)} links to {target}, which isn't there"
        if anchor and linked.suffix == ".md":
            assert anchor in set(anchors_of(linked)), f"{show_page(page)}: no #{anchor} in {target}"


def anchors_of(page: Path) -> Iterator[str]:
    for line in page.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"#+ (.*)", line):
            words = re.sub(r"[^\w\- ]", "", match[1].lower().replace("`", ""))
            yield words.strip().replace(" ", "-")


def test_every_page_can_be_found_from_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = {(DOCS / target).resolve() for target, _ in _LINK.findall(index) if target}
    pages = {page.resolve() for page in DOCS.rglob("*.md") if page.name != "README.md"}
    assert pages <= linked, {page.name for page in pages - linked}


def test_every_setting_is_documented_and_every_documented_one_is_read() -> None:
    used = {
        name
        for path in list_modules("src")
        for name in _SETTING.findall(path.read_text(encoding="utf-8"))
    }
    assert used == set(_SETTING.findall(read_page("configuration.md")))


def test_every_option_of_the_config_file_is_documented() -> None:
    options = set(inspect.signature(define_config).parameters) - {"hooks"}
    options |= set(HookOptions.__annotations__)
    section = (
        read_page("configuration.md").partition("## `trigger_config.py`")[2].partition("\n## ")[0]
    )
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == options


def test_what_follows_an_error_code_is_what_the_page_says() -> None:
    row = re.compile(r"^\| `([A-Z_]+)` \| .* \| (\w+) \| `([A-Z_]+)`", re.MULTILINE)
    rows = row.findall(read_page("errors.md"))
    documented = {code: (is_retried == "yes", ends_as) for code, is_retried, ends_as in rows}
    assert documented == {code.value: what_follows(code) for code in ErrorCode}


def what_follows(code: ErrorCode) -> tuple[bool, str]:
    """Whether another attempt follows while there may be one, and how the run ends otherwise."""
    if code is ErrorCode.TASK_RUN_CANCELLED:
        return False, str(RunStatus.CANCELED)  # the run has that status before its attempt ends
    error = InternalError(code=code)
    first, last = (
        decide_failure(error, attempts_left=left, skip_retrying=False, is_development=False)
        for left in (1, 0)
    )
    ended = TRANSITIONS[ExecutionStatus.EXECUTING][last]
    return first is RunEvent.RETRY, str(ended.run_status)


def test_every_run_status_is_documented() -> None:
    text = read_page("statuses.md")
    missing = {status.value for status in RunStatus if f"`{status}`" not in text}
    assert not missing


def test_every_route_is_documented() -> None:
    text = read_page("http-api.md")
    missing = {
        f"{operation.method} {operation.path}"
        for operation in OPERATIONS
        if f"{operation.method} {operation.path}`" not in text
    }
    assert not missing


def test_no_documented_route_is_missing() -> None:
    served = (*OPERATIONS, *openapi.make_operations(OPERATIONS))
    known = {(operation.method, operation.path) for operation in served}
    named = re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`?]*)`", read_reference())
    assert set(named) <= known


def commands() -> Iterator[tuple[str, click.Command]]:
    to_visit: list[tuple[str, click.Command]] = [("runwell", main)]
    while to_visit:
        name, command = to_visit.pop()
        yield name, command
        if isinstance(command, click.Group):
            to_visit += [(f"{name} {sub}", found) for sub, found in command.commands.items()]


def test_every_command_and_option_is_documented() -> None:
    text = read_page("cli.md")
    missing: list[str] = []
    for name, command in commands():
        assert isinstance(command, click.Command)
        heading = re.search(
            rf"^#+ `{re.escape(name)}`$(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE
        )
        if heading is None:
            missing.append(name)
            continue
        for parameter in command.params:
            is_option = isinstance(parameter, click.Option)
            names = parameter.opts if is_option else [parameter.human_readable_name]
            missing += [f"{name} {option}" for option in names if option not in heading[1]]
    assert not missing


def test_no_documented_command_is_missing() -> None:
    documented = set(re.findall(r"^#+ `(runwell[^`]*)`$", read_page("cli.md"), re.MULTILINE))
    assert documented == {name for name, _ in commands()}
