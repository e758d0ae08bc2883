"""FastAPI: trigger a run without blocking, and show its progress on a page.

    uvicorn fastapi_app:app

The page reads a stream of server-sent events, which comes from a subscription; a client that
prefers to ask reads `/reports/{run_id}`.
"""

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import BaseModel
from trigger.report import ReportRequest, write_report

from runwell import LiveRun, NotFoundError, Run, runs

app = FastAPI(title="Reports")

_PAGE = """<!doctype html>
<title>Report</title>
<p>Status: <output id="status">...</output>, lines: <output id="done">0</output></p>
<pre id="text"></pre>
<script>
  const show = (id, value) => { document.getElementById(id).textContent = value; };
  const events = new EventSource(location.pathname.replace(/\\/page$/, "/events"));
  events.onmessage = (event) => {
    const report = JSON.parse(event.data);
    show("status", report.status);
    show("done", report.done);
    show("text", report.text ?? "");
    if (report.is_finished) events.close();
  };
</script>
"""


class Progress(BaseModel):
    """How far a report is."""

    run_id: str
    status: str
    done: int
    is_finished: bool
    text: str | None = None


@app.post("/reports", status_code=202)
async def start(request: ReportRequest) -> Progress:
    """Trigger a run, and answer at once."""
    handle = await write_report.trigger(request, tags=["web"])
    return Progress(run_id=handle.id, status="QUEUED", done=0, is_finished=False)


@app.get("/reports/{run_id}")
async def progress(run_id: str) -> Progress:
    """How far it is now."""
    return read(await find(run_id))


@app.get("/reports/{run_id}/events")
async def events(run_id: str) -> StreamingResponse:
    """Every change until its end, as server-sent events."""
    await find(run_id)
    return StreamingResponse(follow(run_id), media_type="text/event-stream")


@app.get("/reports/{run_id}/page")
async def page(run_id: str) -> HTMLResponse:
    """A page that changes by itself."""
    await find(run_id)
    return HTMLResponse(_PAGE)


async def find(run_id: str) -> Run[Any]:
    """A run of ours; 404 without one."""
    try:
        run = await runs.retrieve(run_id)
    except NotFoundError:
        raise HTTPException(404, f"there is no report {run_id}") from None
    if run.task_identifier != write_report.id:
        raise HTTPException(404, f"there is no report {run_id}")
    return run


async def follow(run_id: str) -> AsyncGenerator[str]:
    """An event for each change; the subscription ends when the run has."""
    async for run in runs.subscribe_to_run(run_id):
        yield f"data: {read(run).model_dump_json()}\n\n"


def read(run: Run[Any] | LiveRun[Any]) -> Progress:
    """A run as this application shows it."""
    done = (run.metadata or {}).get("done")
    output: Any = run.output
    return Progress(
        run_id=run.id,
        status=run.status,
        done=done if isinstance(done, int) else 0,
        is_finished=run.is_completed,
        text=output["text"] if run.is_success else None,
    )
