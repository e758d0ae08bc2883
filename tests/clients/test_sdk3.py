"""The unmodified `@trigger.dev/sdk` 3.3.17 from the npm registry, with tasks that are Python."""

import json
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from tests.support.platform import Platform, temporary_platform

FOLDER = Path(__file__).parent
NODE, NPM = shutil.which("node"), shutil.which("npm")
pytestmark = [
    pytest.mark.skipif(
        (NODE is None or NPM is None) and "RUNWELL_REQUIRE_NODE" not in os.environ,
        reason="node and npm are not installed here",
    ),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def installed() -> Path:
    """The folder with its packages, as the lock file has them."""
    if not (FOLDER / "node_modules" / ".package-lock.json").exists():
        subprocess.run([NPM or "npm", "ci", "--ignore-scripts"], cwd=FOLDER, check=True)
    return FOLDER


@pytest.fixture(scope="module")
def platform() -> Generator[Platform]:
    with temporary_platform("--capacity", "8") as platform:
        yield platform


def run_script(folder: Path, script: str, environment: dict[str, str]) -> dict[str, str | None]:
    """What each case of a script came to: None, or its error."""
    done = subprocess.run(
        [NODE or "node", script],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=220,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    assert lines, done.stdout + done.stderr
    return {line["name"]: line["error"] for line in lines}


def test_everything_that_the_sdk_calls_works(installed: Path, platform: Platform) -> None:
    local = json.loads((platform.server.data_dir / "local.json").read_text(encoding="utf-8"))
    answer = httpx.get(
        f"{platform.server.url}/api/v1/projects",
        headers={"authorization": f"Bearer {local['accessToken']}"},
    )
    (project,) = answer.json()
    results = run_script(
        installed,
        "sdk3.mjs",
        {
            "TRIGGER_API_URL": platform.server.url,
            "TRIGGER_SECRET_KEY": platform.secret_key,
            "PROJECT_REF": project["externalRef"],
            "PERSONAL_TOKEN": local["accessToken"],
        },
    )
    failed = {name: error for name, error in results.items() if error is not None}
    assert not failed, "\n\n".join(f"{name}: {error}" for name, error in failed.items())
    assert len(results) > 15
