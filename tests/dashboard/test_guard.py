"""Who may reach a page: nobody through another name, another site, or another machine."""

import pytest

from tests.dashboard.showing import showing


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:3030", "127.0.0.1.evil.example", ""]
)
async def test_a_page_does_not_answer_to_another_name(database_url: str, host: str) -> None:
    async with showing(database_url) as shown:
        answer = await shown.client.get(shown.path("runs"), headers={"host": host})
        assert answer.status_code == 421
        assert "proj_" not in answer.text


@pytest.mark.parametrize(
    "host", ["localhost:3030", "127.0.0.1:3030", "[::1]:3030", "app.localhost"]
)
async def test_a_page_answers_to_the_names_of_this_machine(database_url: str, host: str) -> None:
    async with showing(database_url) as shown:
        answer = await shown.client.get(shown.path("runs"), headers={"host": host})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
async def test_another_site_changes_nothing(database_url: str, headers: dict[str, str]) -> None:
    async with showing(database_url) as shown:
        answer = await shown.client.post(shown.path("pause"), headers=headers)
        assert answer.status_code == 403
        assert "no run starts" not in await shown.page("queues")


async def test_our_own_pages_may_change_things(database_url: str) -> None:
    async with showing(database_url) as shown:
        for headers in ({"sec-fetch-site": "same-origin"}, {"origin": shown.url}, {}):
            answer = await shown.client.post(shown.path("pause"), headers=headers)
            assert answer.status_code == 303


async def test_no_other_site_can_read_a_page(database_url: str) -> None:
    async with showing(database_url) as shown:
        answer = await shown.client.get(
            shown.path("runs"), headers={"origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in answer.headers
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


async def test_a_server_that_other_machines_reach_shows_no_page(database_url: str) -> None:
    async with showing(database_url, is_local=False) as shown:
        answer = await shown.client.get(shown.path("runs"))
        assert answer.status_code == 403
        assert "RUNWELL_HOST" in answer.text
        assert (await shown.client.get("/healthz")).status_code == 200
