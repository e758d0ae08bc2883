"""Which server a command talks to: the one that is configured, or the local one.

A local server is found by the file that it keeps in its data directory (`.runwell/local.json`),
from the current folder upward.
"""

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from runwell.client.transport import DEFAULT_URL, check_url, read_environment
from runwell.core.errors import ConfigurationError

DATA_FOLDER: Final = ".runwell"
_LOCAL_FILE: Final = "local.json"
# What people also call an environment.
_SLUGS: Final = {"development": "dev", "staging": "stg", "production": "prod"}


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A server and a key. `data_dir` is that of a local server, None of a configured one."""

    url: str
    secret_key: str = field(repr=False)
    #: The personal access token of the local server's own machine.
    access_token: str | None = field(default=None, repr=False)
    data_dir: Path | None = None
    pid: int | None = None


def find_connection(folder: Path) -> Connection:
    """The configured server, else the local one; raises ConfigurationError that says what to do."""
    found = find_configured() or find_local(folder)
    if found is None:
        raise ConfigurationError(
            f"no server is running for {folder} or a folder above it: start one with `runwell dev` "
            "(or `runwell server`), or set TRIGGER_API_URL and TRIGGER_SECRET_KEY"
        )
    return found


def find_configured() -> Connection | None:
    """The server of TRIGGER_API_URL and TRIGGER_SECRET_KEY; None when there is no key."""
    settings = read_environment()
    url = check_url(settings.base_url)
    if settings.secret_key:
        return Connection(url=url, secret_key=settings.secret_key)
    if settings.base_url != DEFAULT_URL:
        raise ConfigurationError(
            f"TRIGGER_API_URL is set ({url}) and TRIGGER_SECRET_KEY is not: set it to the key of "
            "an environment of that server, or unset both to use the local server"
        )
    return None


def find_local(folder: Path) -> Connection | None:
    """The nearest local server from a folder upward that runs."""
    start = folder.resolve()
    for candidate in (start, *start.parents):
        found = read_local(candidate / DATA_FOLDER)
        if found is not None:
            return found
    return None


def read_local(data_dir: Path) -> Connection | None:
    """The server that runs on a data directory; None when there is none."""
    try:
        content = cast("object", json.loads((data_dir / _LOCAL_FILE).read_bytes()))
    except (OSError, ValueError):
        return None
    match content:
        case {"url": str(url), "secretKey": str(key), "pid": int(pid)} if _is_alive(pid):
            token = cast("dict[str, object]", content).get("accessToken")
            return Connection(
                url=url,
                secret_key=key,
                access_token=token if isinstance(token, str) else None,
                data_dir=data_dir,
                pid=pid,
            )
        case _:
            return None


def read_keys(connection: Connection, environment: str) -> str:
    """The secret key of an environment; raises ConfigurationError when it is not known here."""
    if connection.data_dir is None:
        slug = environment_of(connection.secret_key)
        if slug != _SLUGS.get(environment, environment):
            raise ConfigurationError(
                f"TRIGGER_SECRET_KEY is set, to a key of the environment {slug}: unset it to be "
                f"told the key of {environment} of the local server"
            )
        return connection.secret_key
    try:
        content = cast("object", json.loads((connection.data_dir / _LOCAL_FILE).read_bytes()))
    except (OSError, ValueError):
        content = None
    keys: dict[str, str] = {environment_of(connection.secret_key): connection.secret_key}
    match content:
        case {"secretKeys": dict()}:
            keys |= cast("dict[str, dict[str, str]]", content)["secretKeys"]
        case _:
            pass
    environment = _SLUGS.get(environment, environment)
    if environment not in keys:
        raise ConfigurationError(
            f"the local server has no environment {environment!r}: it has {', '.join(keys)}"
        )
    return keys[environment]


def replace_local_key(data_dir: Path, environment: str, secret_key: str) -> None:
    """Note the new key of an environment where programs of this machine look for it."""
    path = data_dir / _LOCAL_FILE
    try:
        content = cast("dict[str, object]", json.loads(path.read_bytes()))
        keys = cast("dict[str, str]", content["secretKeys"])
        keys[environment] = secret_key
        if environment == environment_of(str(content["secretKey"])):
            content["secretKey"] = secret_key
        # mkstemp makes the file with mode 0600.
        descriptor, name = tempfile.mkstemp(prefix=f".{_LOCAL_FILE}-", dir=data_dir)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
        Path(name).replace(path)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(
            f"the key was replaced, and {path} still has the old one ({error}): restart the server"
        ) from None


def environment_of(secret_key: str) -> str:
    """The slug in a secret key: `tr_dev_...` is one of `dev`."""
    return secret_key.removeprefix("tr_").partition("_")[0]


def _is_alive(pid: int) -> bool:
    # A server that was killed leaves its file behind.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
