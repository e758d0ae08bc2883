"""`runwell keys` and `runwell access-tokens` against a real server."""

import stat
from pathlib import Path

from tests.cli.terminal import runwell, runwell_json


def test_a_key_is_rotated_and_local_programs_find_the_new_one(served: Path) -> None:
    before = runwell("env", folder=served).stdout
    made = runwell_json("keys", "rotate", "dev", "--overlap", "0s", folder=served)
    after = runwell("env", folder=served).stdout
    production = runwell("keys", "rotate", "prod", folder=served)

    assert str(made["apiKey"]) not in before
    assert str(made["apiKey"]) in after
    assert runwell("trigger", "hello", folder=served).returncode == 0
    mode = stat.S_IMODE((served / ".runwell" / "local.json").stat().st_mode)
    assert mode == 0o600
    assert production.stdout.startswith("tr_prod_")
    assert "is good until" in production.stderr
    assert production.stdout.strip() in runwell("env", "-e", "prod", folder=served).stdout


def test_a_personal_token_is_made_used_listed_and_revoked(served: Path) -> None:
    url = str(runwell_json("env", folder=served)["TRIGGER_API_URL"])
    made = runwell("access-tokens", "create", "ci", "--expires", "90d", folder=served)
    token = made.stdout.strip()
    environment = {"TRIGGER_API_URL": url, "TRIGGER_ACCESS_TOKEN": token}
    listed = runwell("access-tokens", "list", folder=served, environment=environment)
    other = runwell_json("access-tokens", "create", "x", "--email", "a@x.org", folder=served)
    gone = runwell("access-tokens", "revoke", str(other["id"]), folder=served)

    assert token.startswith("tr_pat_")
    assert "shown only now" in made.stderr
    assert "ci" in listed.stdout
    assert token not in listed.stdout
    # It is another person's: the person who made it doesn't revoke it.
    assert (gone.returncode, "you have no personal access token" in gone.stderr) == (1, True)
    bad = runwell("access-tokens", "create", "ci", "--expires", "soon", folder=served)
    assert (bad.returncode, "--expires: 'soon' is not a duration" in bad.stderr) == (2, True)
