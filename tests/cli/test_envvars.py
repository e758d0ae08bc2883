"""`runwell envvars` against a real server."""

from pathlib import Path

from tests.cli.terminal import runwell, runwell_json


def test_variables_are_set_imported_shown_and_deleted(served: Path) -> None:
    (served / "token.txt").write_text("hunter2\n")
    (served / ".env").write_text("A=1\nREGION=us\nTRIGGER_SECRET_KEY=x\n# nothing\nEMPTY=\n")

    done = runwell("envvars", "set", "REGION=eu", "GREETING=Hello there", folder=served)
    secret = runwell("envvars", "set", "--secret", "TOKEN=@token.txt", folder=served)
    imported = runwell("envvars", "import", ".env", folder=served)
    listed = runwell("envvars", "list", folder=served)

    assert done.stdout.strip() == "GREETING, REGION set in dev"
    assert "hunter2" not in secret.stdout + secret.stderr
    assert imported.stdout.strip() == "A, REGION imported to dev"
    assert "Hello there" in listed.stdout
    assert "<redacted>" in listed.stdout
    assert "hunter2" not in listed.stdout
    assert runwell("envvars", "get", "REGION", folder=served).stdout == "eu\n"
    gone = runwell_json("envvars", "delete", "REGION", "A", folder=served)
    assert gone == {"deleted": ["REGION", "A"]}
    missing = runwell("envvars", "get", "REGION", folder=served)
    assert (missing.returncode, "no environment variable REGION" in missing.stderr) == (1, True)
    production = runwell("envvars", "list", "-e", "prod", folder=served)
    assert "there are none yet" in production.stderr


def test_what_can_not_be_set_is_told_without_its_value(served: Path) -> None:
    (served / "empty.env").write_text("# nothing\n")
    for words, status, said in (
        (("set", "hunter2"), 2, "write NAME=VALUE"),
        (("set", "A=@nowhere.txt"), 2, "A: can't read nowhere.txt"),
        (("set", "a-b=hunter2"), 1, "a-b: a name has letters"),
        (("import", "empty.env"), 1, "sets no variable"),
    ):
        done = runwell("envvars", *words, folder=served)
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr
        assert "hunter2" not in done.stderr
