"""`envvars` against a real server, and what is refused."""

import asyncio
import logging

import pytest

from runwell.client.api import ApiClient
from runwell.client.transport import BadRequestError, ClientSettings, NotFoundError
from runwell.client.variables import BlockingEnvVars, EnvVars
from tests.server.serving import Served, error_of, serving

FORM = (
    b'--x\r\ncontent-disposition: form-data; name="variables"; filename=".env"\r\n\r\n'
    b"# a comment\nexport A='one two'\nB=\"2\"\nEMPTY=\n\r\n"
    b'--x\r\ncontent-disposition: form-data; name="override"\r\n\r\ntrue\r\n--x--\r\n'
)


def client_of(served: Served, slug: str = "dev") -> ApiClient:
    settings = ClientSettings(base_url=served.url, secret_key=served.keys[slug])
    return ApiClient(lambda: settings)


async def test_variables_are_created_read_changed_and_deleted(database_url: str) -> None:
    async with serving(database_url) as served:
        envvars = EnvVars(client_of(served))
        await envvars.create("REGION", "eu", environment="dev")
        await envvars.create("TOKEN", "hunter2", is_secret=True)
        await envvars.upload({"REGION": "us", "DEBUG": "1", "EMPTY": ""})
        found = {one.name: (one.value, one.is_secret) for one in await envvars.list()}
        assert found == {
            "REGION": ("eu", False),
            "TOKEN": ("<redacted>", True),
            "DEBUG": ("1", False),
        }
        await envvars.upload({"REGION": "us"}, override=True)
        assert (await envvars.retrieve("REGION", environment="development")).value == "us"
        await envvars.update("REGION", "ap")

        def change() -> None:
            blocking = BlockingEnvVars(client_of(served))
            assert blocking.retrieve("REGION").value == "ap"
            blocking.delete("REGION")
            blocking.create("REGION", "eu")
            blocking.update("REGION", "jp")
            blocking.upload({"X": "1"})
            assert [one.name for one in blocking.list()] == ["DEBUG", "REGION", "TOKEN", "X"]

        await asyncio.to_thread(change)
        everything = await served.get("/api/v1/projects/~/envvars")
        assert everything["variables"]["TOKEN"] == "hunter2"
        other = EnvVars(client_of(served, "prod"))
        assert await other.list(environment="prod") == []


async def test_what_can_not_be_is_refused_with_its_name(database_url: str) -> None:
    async with serving(database_url) as served:
        envvars = EnvVars(client_of(served))
        # The second one is a repetition, as of a request whose answer was lost.
        await envvars.create("A", "1")
        await envvars.create("A", "1")
        for name, value in (("A", "2"), ("a b", "1"), ("TRIGGER_API_URL", "x"), ("N", "\x00")):
            with pytest.raises(BadRequestError) as raised:
                await envvars.create(name, value)
            assert name in str(raised.value)
            assert isinstance(raised.value.body, dict)
            assert raised.value.body["variableErrors"]
        with pytest.raises(BadRequestError):
            await envvars.update("A", "\x00")
        with pytest.raises(BadRequestError):
            await envvars.upload({"B": "1", "c-d": "1"})
        for call in (envvars.retrieve("NONE"), envvars.update("NONE", "1"), envvars.delete("NONE")):
            with pytest.raises(NotFoundError, match="no environment variable NONE"):
                await call
        for listing in (envvars.list(environment="prod"), envvars.list(project="proj_other")):
            with pytest.raises(BadRequestError, match="the URL names another one"):
                await listing
        with pytest.raises(ValueError, match="no name"):
            await envvars.retrieve("..")
        with pytest.raises(TypeError, match="'A': a variable has a text") as wrong:
            await envvars.upload({"A": 12345})  # pyright: ignore[reportArgumentType]
        assert "12345" not in str(wrong.value)
        assert [one.name for one in await envvars.list()] == ["A"]


async def test_a_dotenv_file_is_taken_as_a_form_too(database_url: str) -> None:
    async with serving(database_url) as served:
        path = "/api/v1/projects/~/envvars/dev/import"
        headers = {"content-type": "multipart/form-data; boundary=x"}
        answer = await served.client.post(path, content=FORM, headers=headers)
        assert answer.json() == {"success": True}
        everything = await served.get("/api/v1/projects/~/envvars")
        assert everything["variables"] == {"A": "one two", "B": "2"}
        for content in (b"", b"garbage", FORM.replace(b"variables", b"nothing")):
            bad = await served.client.post(path, content=content, headers=headers)
            assert bad.status_code == 400
            assert "no field 'variables'" in error_of(bad)


async def test_values_never_get_into_the_log(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(database_url) as served:
        envvars = EnvVars(client_of(served))
        await envvars.upload({"TOKEN": "hunter2hunter2"})
        await envvars.retrieve("TOKEN")
        with pytest.raises(BadRequestError) as raised:
            await envvars.create("NUL", "hunter2hunter2\x00")
        assert "hunter2" not in str(raised.value)
    assert not any("hunter2" in str(record.__dict__) for record in caplog.records)
