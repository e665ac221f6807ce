"""For those who run the service: is it alive, is it ready, what does it do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from yozora import __version__
from yozora.serve.access import Serving
from yozora.serve.metrics import rendered
from yozora.serve.schemas import METRICS

__all__ = ["router"]

router = APIRouter(tags=["Operation"])


@router.get("/healthz")
def healthz() -> dict[str, Any]:
    """The process answers."""
    return {"ok": True, "version": __version__}


@router.get("/readyz", responses={503: {"description": "not ready", "model": dict[str, bool]}})
def readyz(request: Request, service: Serving) -> JSONResponse:
    """The database answers, and the worker in this process, where there is one, works."""
    worker = request.app.state.worker
    checks = {"database": _answers(service), "worker": worker is None or worker.is_alive}
    fine = all(checks.values())
    return JSONResponse({"ok": fine} | checks, 200 if fine else 503)


@router.get("/metrics", response_class=Response, responses=METRICS)
def metrics(service: Serving) -> Response:
    """Prometheus's text format."""
    return Response(rendered(service.database), media_type="text/plain; version=0.0.4; charset=utf-8")


def _answers(service: Serving) -> bool:
    try:
        service.database.check()
    except SQLAlchemyError:
        return False
    return True
