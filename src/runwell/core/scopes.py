"""Scopes of public access tokens: how they are written down, and what they let pass.

A scope is `action`, `action:type` or `action:type:id`. It is compared as a whole and never taken
apart, since an id may hold colons. Source: `protocol.md` sections 1.2 and 1.3.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

#: A value of nested scopes: all of a type, one id, or several.
ScopeIds = bool | str | Sequence[str]
#: Scopes as people write them: `{"read": {"runs": ["run_1"], "tags": True}}`.
NestedScopes = Mapping[str, bool | Mapping[str, ScopeIds]]

#: Lets everything pass that a public access token may ever do.
ADMIN: Final = "admin"
MAX_SCOPES: Final = 100
MAX_SCOPE_CHARACTERS: Final = 512


class Resource(NamedTuple):
    """What a request is about, as scopes name it; an id of None stands for all of the type."""

    type: str
    id: str | None = None


def allows(
    scopes: Collection[str],
    action: str,
    resources: Iterable[Resource],
    super_scopes: Collection[str] = (),
) -> bool:
    """Whether scopes let an action on any of these resources pass.

    >>> allows({"read:runs:run_1"}, "read", [Resource("runs", "run_1")])
    True
    >>> allows({"read:runs:run_1"}, "read", [Resource("runs", "run_2")])
    False
    """
    if not scopes:
        return False
    if any(scope in scopes for scope in super_scopes):
        return True
    return any(name in scopes for resource in resources for name in names_of(action, resource))


def names_of(action: str, resource: Resource) -> list[str]:
    """The scopes that name a resource: that of its type, and its own."""
    names = [f"{action}:{resource.type}"]
    if resource.id is not None:
        names.append(f"{action}:{resource.type}:{resource.id}")
    return names


def flatten_scopes(nested: NestedScopes) -> list[str]:
    """Nested scopes as they are in a token; raises ValueError that names what is wrong.

    >>> flatten_scopes({"read": {"runs": ["run_1"], "tags": "a"}, "write": {"tasks": True}})
    ['read:runs:run_1', 'read:tags:a', 'write:tasks']
    """
    flat: list[str] = []
    for action, types in nested.items():
        if isinstance(types, bool):
            flat += [action] if types else []
            continue
        if not isinstance(types, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (what a user may give)
            raise ValueError(f"scopes[{action!r}] takes True or a dict of types, not {types!r}")
        for kind, ids in types.items():
            flat += _flatten_type(action, kind, ids)
    check_scopes(flat)
    return flat


def check_scopes(scopes: Sequence[str]) -> None:
    """Raise ValueError for more scopes than a token may have, or one that is none."""
    if len(scopes) > MAX_SCOPES:
        raise ValueError(f"a token has {MAX_SCOPES} scopes at most, and {len(scopes)} were given")
    for scope in scopes:
        if not 1 <= len(scope) <= MAX_SCOPE_CHARACTERS or "\x00" in scope:
            raise ValueError(
                f"{scope[:64]!r} is no scope: write it like 'read:runs:run_1234', in "
                f"{MAX_SCOPE_CHARACTERS} characters at most"
            )


def _flatten_type(action: str, kind: str, ids: ScopeIds) -> list[str]:
    if isinstance(ids, bool):
        return [f"{action}:{kind}"] if ids else []
    given: list[object] = [ids] if isinstance(ids, str) else list(ids)
    for one in given:
        if not isinstance(one, str) or not one:
            raise ValueError(
                f"scopes[{action!r}][{kind!r}] takes True, an id or several, not {ids!r}"
            )
    return [f"{action}:{kind}:{one}" for one in given]
