"""Personal access tokens: whose they are, what they show, and how they end."""

import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from runwell.engine import people
from tests.server.serving import Served, error_of, serving
from tests.support.factories import read
from tests.support.public_tokens import make_token


@contextlib.asynccontextmanager
async def as_owner(database_url: str) -> AsyncGenerator[tuple[Served, httpx.AsyncClient]]:
    """A server, and a client with the token of its own machine."""
    async with serving(database_url) as served:
        now = served.backend.now()
        token = await served.backend.db.run(lambda tx: people.ensure_local_token(tx, now=now))
        again = await served.backend.db.run(lambda tx: people.ensure_local_token(tx, now=now))
        assert token == again
        async with client_of(served, token) as owner:
            yield served, owner


def client_of(served: Served, credential: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {credential}"}
    return httpx.AsyncClient(base_url=served.url, headers=headers, timeout=30)


async def create(client: httpx.AsyncClient, **body: object) -> dict[str, Any]:
    answer = await client.post("/api/v1/personal-access-tokens", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_token_is_shown_once_and_kept_as_a_hash(database_url: str) -> None:
    async with as_owner(database_url) as (served, owner):
        made = await create(owner, name="ci")
        token = made["token"]
        assert token.startswith("tr_pat_")
        assert len(token) == len("tr_pat_") + 40
        listed = (await owner.get("/api/v1/personal-access-tokens")).json()["data"]
        assert [one["name"] for one in listed] == ["ci", "the server's own machine"]
        assert listed[0]["obfuscatedToken"] == f"tr_pat_{token[7:11]}{'•' * 18}{token[-4:]}"
        assert all("token" not in one for one in listed)
        rows = await read(served.backend.db, "SELECT t::text AS all FROM personal_access_tokens t")
        assert not any(token in row["all"] for row in rows)
        async with client_of(served, token) as client:
            me = (await client.get("/api/v2/whoami")).json()
            assert me["email"] == "local@runwell.local"
            assert me["dashboardUrl"] == served.url
            await owner.delete(f"/api/v1/personal-access-tokens/{made['id']}")
            gone = await client.get("/api/v2/whoami")
            assert gone.status_code == 401
            assert token not in gone.text
        again = await owner.delete(f"/api/v1/personal-access-tokens/{made['id']}")
        assert again.status_code == 404


async def test_a_token_ends_when_it_was_said_to(database_url: str) -> None:
    async with as_owner(database_url) as (served, owner):
        soon = datetime.now(UTC) + timedelta(hours=1)
        made = await create(owner, name="short", expiresAt=soon.isoformat())

        async def find(now: datetime) -> people.Person | None:
            async with served.backend.db.connection() as tx:
                return await people.find_person(tx, made["token"], now=now)

        assert await find(soon - timedelta(seconds=1)) is not None
        assert await find(soon) is None
        past = {"name": "past", "expiresAt": "2020-01-01T00:00:00Z"}
        answer = await owner.post("/api/v1/personal-access-tokens", json=past)
        assert answer.status_code == 400
        assert "good for nothing" in error_of(answer)


async def test_an_owner_makes_tokens_for_others_and_a_member_does_not(database_url: str) -> None:
    async with as_owner(database_url) as (served, owner):
        made = await create(owner, name="laptop", email="Ada@Example.com")
        async with client_of(served, made["token"]) as ada:
            assert (await ada.get("/api/v2/whoami")).json()["email"] == "ada@example.com"
            assert len((await ada.get("/api/v1/projects")).json()) == 1
            assert (await create(ada, name="mine", email="ada@example.com"))["token"]
            refused = await ada.post(
                "/api/v1/personal-access-tokens", json={"name": "x", "email": "eve@example.com"}
            )
            assert refused.status_code == 403
            # Of others' tokens nobody is told.
            others = (await owner.get("/api/v1/personal-access-tokens")).json()["data"]
            missing = await ada.delete(f"/api/v1/personal-access-tokens/{others[0]['id']}")
            assert missing.status_code == 404
        for body in ({"name": ""}, {"name": "x", "email": "nobody"}, {"name": "x" * 200}):
            bad = await owner.post("/api/v1/personal-access-tokens", json=body)
            assert bad.status_code == 400, body


async def test_projects_are_those_of_ones_organisations(database_url: str) -> None:
    async with as_owner(database_url) as (served, owner):
        [project] = (await owner.get("/api/v1/projects")).json()
        ref = project["externalRef"]
        assert (await owner.get(f"/api/v1/projects/{ref}")).json() == project
        assert project["organization"].keys() == {"id", "title", "slug", "createdAt"}
        for slug, key in (("dev", "dev"), ("staging", "stg"), ("prod", "prod")):
            found = (await owner.get(f"/api/v1/projects/{ref}/{slug}")).json()
            assert found["apiKey"] == served.keys[key]
            assert found["apiUrl"] == served.url
        await read(
            served.backend.db,
            "INSERT INTO users (public_id, email, created_at) "
            "VALUES ('user_eve', 'eve@example.com', now()) RETURNING id",
        )
        await read(
            served.backend.db,
            "INSERT INTO personal_access_tokens "
            "(public_id, user_id, name, token_hash, obfuscated, created_at) "
            "SELECT 'pat_eve', id, 'x', encode(sha256('tr_pat_eve'::bytea), 'hex'), 'x', now() "
            "FROM users WHERE email = 'eve@example.com' RETURNING id",
        )
        async with client_of(served, "tr_pat_eve") as eve:
            assert (await eve.get("/api/v1/projects")).json() == []
            for path in (ref, f"{ref}/dev", f"{ref}/envvars/dev"):
                mine = await eve.get(f"/api/v1/projects/{path}")
                nowhere = await eve.get(f"/api/v1/projects/{path.replace(ref, 'proj_nowhere')}")
                assert mine.status_code == nowhere.status_code == 404
                assert mine.text.replace(ref, "proj_nowhere") == nowhere.text
            rotated = await eve.post(f"/api/v1/projects/{ref}/dev/rotate-key", json={})
            assert rotated.status_code == 404


async def test_variables_of_every_environment_are_changed_with_a_personal_token(
    database_url: str,
) -> None:
    async with as_owner(database_url) as (served, owner):
        [project] = (await owner.get("/api/v1/projects")).json()
        path = f"/api/v1/projects/{project['externalRef']}/envvars"
        made = await owner.post(f"{path}/prod", json={"name": "A", "value": "1"})
        assert made.json() == {"success": True}
        assert (await owner.get(f"{path}/dev")).json() == []
        async with client_of(served, served.keys["prod"]) as production:
            values = (await production.get("/api/v1/projects/~/envvars")).json()["variables"]
            assert values == {"A": "1"}
        assert (await owner.get(f"{path}/preview")).status_code == 404


async def test_a_key_is_rotated_with_an_overlap(database_url: str) -> None:
    async with as_owner(database_url) as (served, owner):
        [project] = (await owner.get("/api/v1/projects")).json()
        path = f"/api/v1/projects/{project['externalRef']}/dev/rotate-key"
        old = served.keys["dev"]
        made = (await owner.post(path, json={"overlap": "1h"})).json()
        assert [key["apiKey"] for key in made["keys"]] == [made["apiKey"], old]
        for key in (old, made["apiKey"]):
            async with client_of(served, key) as client:
                assert (await client.get("/api/v1/runs")).status_code == 200
        last = (await owner.post(path, json={"overlap": "0s"})).json()
        assert [key["apiKey"] for key in last["keys"]] == [last["apiKey"]]
        sub = "env_x"
        for key in (old, made["apiKey"]):
            async with client_of(served, key) as client:
                assert (await client.get("/api/v1/runs")).status_code == 401
            async with client_of(served, make_token(key, sub, "admin")) as client:
                assert (await client.get("/api/v1/runs")).status_code == 401
        for body in ({"overlap": "soon"}, {"overlap": "1000d"}, {"overlap": -1}):
            assert (await owner.post(path, json=body)).status_code == 400, body
        statuses = [(await owner.post(path, json={"overlap": "1h"})).status_code for _ in range(20)]
        assert statuses[-1] == 422


async def test_a_secret_key_is_no_personal_token_and_the_other_way_round(
    database_url: str,
) -> None:
    async with as_owner(database_url) as (served, owner):
        answer = await served.client.get("/api/v2/whoami")
        assert answer.status_code == 401
        assert "this is a secret key" in error_of(answer)
        answer = await owner.get("/api/v1/runs")
        assert answer.status_code == 401
        assert "this is a personal access token" in error_of(answer)
        assert (await owner.get("/api/v1/projects/~/envvars")).status_code == 401


async def test_runs_of_all_environments_are_one_list_that_is_walked_both_ways(
    database_url: str,
) -> None:
    async with as_owner(database_url) as (served, owner):
        ref = (await owner.get("/api/v1/projects")).json()[0]["externalRef"]
        made: list[str] = []
        for slug in ("dev", "prod", "dev", "stg", "dev"):
            headers = {"authorization": f"Bearer {served.keys[slug]}"}
            answer = await served.client.post(
                "/api/v1/tasks/hello/trigger", json={}, headers=headers
            )
            made.append(answer.json()["id"])
        newest = sorted(made, reverse=True)

        async def walk(cursor: str, **query: str) -> list[str]:
            seen: list[str] = []
            pages = 0
            while True:
                answer = await owner.get(f"/api/v1/projects/{ref}/runs", params=query)
                body = answer.json()
                assert answer.status_code == 200, answer.text
                seen += [run["id"] for run in body["data"]]
                pages += 1
                name = "next" if cursor == "page[after]" else "previous"
                if name not in body["pagination"]:
                    return seen
                assert pages < 10
                query[cursor] = body["pagination"][name]

        assert await walk("page[after]", **{"page[size]": "2"}) == newest
        back = await walk("page[before]", **{"page[size]": "2", "page[before]": newest[-1]})
        assert sorted(back, reverse=True) == newest[:-1]
        assert await walk("page[after]", **{"filter[env]": "prod,staging"}) == sorted(
            (made[1], made[3]), reverse=True
        )
        bad = await owner.get(f"/api/v1/projects/{ref}/runs?filter[env]=preview")
        assert bad.status_code == 400
        assert "the project has no 'preview'" in error_of(bad)
        assert "the project has no 'preview'" in error_of(bad)
