#!/bin/sh
# Installs the package as an application would, without extras, and imports what is promised then.
set -eu
cd "$(dirname "$0")/.."

rm -rf .venv-bare
if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --python .venv/bin/python .venv-bare
    uv pip install --quiet --python .venv-bare/bin/python .
else
    .venv/bin/python -m venv .venv-bare
    .venv-bare/bin/python -m pip -qq --disable-pip-version-check install .
fi

cd /
"$OLDPWD/.venv-bare/bin/python" -I - <<'PYTHON'
import sys
from importlib.resources import files
from importlib.util import find_spec

from runwell import *
import runwell.client.workers, runwell.sync, runwell.worker.supervisor, runwell.worker.zygote

for extra in ("click", "rich", "asyncpg", "starlette", "uvicorn"):
    assert find_spec(extra) is None, f"{extra} came along"
for part in ("py.typed", "engine/migrations/0001_spine.sql", "engine/sql/queues.sql"):
    assert files("runwell").joinpath(part).is_file(), f"{part} is not in the package"
print(f"runwell imports without extras, from {len(sys.modules)} modules")
PYTHON
rm -rf "$OLDPWD/.venv-bare"
