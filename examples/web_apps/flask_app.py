"""Flask: trigger and follow a run with the blocking functions of `runwell.sync`.

flask --app flask_app run
"""

from http import HTTPStatus
from typing import Any

from flask import Flask, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from pydantic import ValidationError
from trigger.report import ReportRequest, write_report

from runwell import NotFoundError
from runwell.sync import runs

app = Flask(__name__)


@app.post("/reports")
def start() -> ResponseReturnValue:
    """Trigger a run, and say where to ask for it."""
    body: Any = request.get_json()
    try:
        wanted = ReportRequest.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        return jsonify(error=found), HTTPStatus.UNPROCESSABLE_ENTITY
    # A form that is sent twice makes one report.
    handle = write_report.sync.trigger(
        wanted, idempotency_key=request.headers.get("idempotency-key"), tags=["web"]
    )
    place = url_for("progress", run_id=handle.id)
    return jsonify(run_id=handle.id), HTTPStatus.ACCEPTED, {"location": place}


@app.get("/reports/<run_id>")
def progress(run_id: str) -> ResponseReturnValue:
    """How far it is, and what came out."""
    try:
        run = runs.retrieve(run_id)
    except NotFoundError:
        return jsonify(error=f"there is no report {run_id}"), HTTPStatus.NOT_FOUND
    return jsonify(
        run_id=run.id,
        status=run.status,
        done=(run.metadata or {}).get("done", 0),
        is_finished=run.is_completed,
        report=run.output,
    )
