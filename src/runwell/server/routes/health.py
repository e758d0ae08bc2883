"""Whether the server lives and is ready, and the page at the root."""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse

from runwell._version import __version__
from runwell.engine import migrations
from runwell.server.backend import Backend
from runwell.server.http import Answer, answer, error_answer
from runwell.server.operations import Operation

_PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Runwell</title>
<style>
body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem;
  color: #1c1c22; background: #fff; }}
code {{ background: #f0f0f4; padding: .1em .35em; border-radius: .25em; }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e8e8ee; background: #16161a; }} code {{ background: #2a2a32; }}
  a {{ color: #9db4ff; }}
}}
</style>
</head>
<body>
<h1>Runwell {__version__}</h1>
<p>This is a Runwell server: it queues runs of background tasks and hands them to workers.</p>
<ul>
<li><a href="/openapi.json">/openapi.json</a> describes the HTTP API</li>
<li><a href="/healthz">/healthz</a> and <a href="/readyz">/readyz</a> say whether it lives, and
whether it is ready</li>
</ul>
<p>In a terminal, <code>runwell runs list</code> shows the latest runs, <code>runwell env</code>
prints what a client needs, and <code>runwell --help</code> explains the rest.</p>
</body>
</html>
"""


class Health(BaseModel):
    """The server answers."""

    status: str = "ok"
    version: str = __version__


async def healthz(_request: Request, _backend: Backend) -> Answer:
    """Say that the process lives, whatever the database does."""
    return answer(Health())


async def readyz(_request: Request, backend: Backend) -> Answer:
    """Say that the database answers and has the schema of this version."""
    if not await migrations.is_current(backend.db):
        return error_answer(
            503, "the database is not at this server's schema: a migration is missing or running"
        )
    return answer(Health(status="ready"))


async def show_page(_request: Request, _backend: Backend) -> HTMLResponse:
    """Tell a person what this is."""
    return HTMLResponse(_PAGE)


operations: list[Operation] = [
    Operation(
        method="GET",
        path="/healthz",
        endpoint=healthz,
        name="health",
        summary="Whether the process lives",
        tag="server",
        answer=Health,
    ),
    Operation(
        method="GET",
        path="/readyz",
        endpoint=readyz,
        name="readiness",
        summary="Whether requests can be served: the database answers and is migrated",
        tag="server",
        answer=Health,
    ),
    Operation(
        method="GET",
        path="/",
        endpoint=show_page,
        name="page",
        summary="A page that says what this is",
        tag="server",
        answer_description="HTML.",
    ),
]
