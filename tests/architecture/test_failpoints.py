"""Every scope in which a process can die is in the crash matrix, or is left out for a reason."""

import ast

from runwell.server.application import OPERATIONS
from runwell.worker import messages
from tests.architecture.tree import DOCS, PACKAGE, parse
from tests.support.crash_cases import CASES, LEFT_OUT, choose_cases, list_scopes


def names_of_operations() -> set[str]:
    """Those that may write."""
    return {operation.name for operation in OPERATIONS if operation.method != "GET"}


def names_of_loops() -> set[str]:
    """By the calls of `Loop` in the code, so that none is missed that a setting turns off."""
    return {
        str(ast.literal_eval(keyword.value))
        for node in ast.walk(parse(PACKAGE / "engine/background.py"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Loop"
        for keyword in node.keywords
        if keyword.arg == "name"
    }


def names_of_worker_actions() -> set[str]:
    """What a worker says to the server."""
    return {
        f"worker-{ast.literal_eval(node.args[0])}"
        for node in ast.walk(parse(PACKAGE / "client/workers.py"))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_act"
    }


def names_of_messages() -> set[str]:
    """What a task process says to its supervisor."""
    kinds = [value for value in vars(messages).values() if isinstance(value, bytes)]
    named = {messages.name_of(messages.frame(kind)) for kind in kinds if len(kind) == 1}
    return {f"task-{name}" for name in named - {"other"}}


def test_every_scope_is_in_the_matrix_or_left_out_for_a_reason() -> None:
    there_are = (
        names_of_operations()
        | names_of_loops()
        | names_of_worker_actions()
        | names_of_messages()
        | {"parent"}
    )
    assert len(there_are) > 80
    named = list_scopes() | set(LEFT_OUT)
    assert not there_are - named, "neither in CASES nor in LEFT_OUT of tests/support/crash_cases.py"
    assert not named - there_are, "there is no such scope any more"


def test_what_is_left_out_is_not_in_the_matrix() -> None:
    assert not list_scopes() & set(LEFT_OUT)
    assert all(reason.strip() for reason in LEFT_OUT.values())


def test_every_use_of_a_scope_is_known_here() -> None:
    # Whoever comes by points in another module has to be counted above.
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "failpoints.reach(" in path.read_text(encoding="utf-8")
    }
    assert users == {
        "client/workers.py",
        "engine/db.py",
        "engine/loops.py",
        "server/operations.py",
        "worker/inbox.py",
        "worker/zygote.py",
    }


def test_the_documentation_has_the_true_numbers() -> None:
    page = (DOCS / "explanation/what-is-promised.md").read_text(encoding="utf-8")
    told = " ".join(page.split())
    assert f"{len(list_scopes() & names_of_operations())} operations" in told
    assert f"{len(CASES)} cases" in told
    assert f"Each test run has {len(choose_cases())} of them" in told
