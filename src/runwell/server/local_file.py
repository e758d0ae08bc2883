"""`local.json` in the data directory: how other programs of this machine find the local server.

It holds the URL, the secret key of the development environment, those of all environments, a
personal access token, and the process id, readable by its owner only.
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import cast

NAME = "local.json"


def write_local_file(
    data_dir: Path,
    *,
    url: str,
    secret_key: str,
    secret_keys: dict[str, str],
    access_token: str | None = None,
) -> None:
    """Write it, all at once; raises OSError when the directory can't be written to."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Whatever repository the directory is in, or will be: data and keys are not for it.
    ignored = data_dir / ".gitignore"
    if not ignored.exists():
        ignored.write_text("*\n", encoding="utf-8")
    found = {
        "url": url,
        "secretKey": secret_key,
        "secretKeys": secret_keys,
        "accessToken": access_token,
        "pid": os.getpid(),
    }
    content = json.dumps(found, indent=2)
    # mkstemp makes the file with mode 0600.
    descriptor, name = tempfile.mkstemp(prefix=f".{NAME}-", dir=data_dir)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content + "\n")
        temporary.replace(data_dir / NAME)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_local_file(data_dir: Path) -> None:
    """Remove it, if it is still ours."""
    path = data_dir / NAME
    # It may be gone, or another server's, or nothing that we can read: then it stays as it is.
    with contextlib.suppress(OSError, ValueError):
        found = cast("object", json.loads(path.read_text(encoding="utf-8")))
        if isinstance(found, dict) and cast("dict[str, object]", found).get("pid") == os.getpid():
            path.unlink()
