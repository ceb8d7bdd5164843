"""A worker's own little server: its metrics, and whether it lives. Who may ask is as for the API."""

from __future__ import annotations

import asyncio
import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from eventwright.app.composition import App
from eventwright.app.web.access import Access, key_of, refuse_open_doors
from eventwright.app.web.listening import listen, serve_on, url_of

log = logging.getLogger(__name__)

METRICS = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds that the head of a request may take.
PATIENCE = 5.0


async def serve_metrics(app: App, stopping: asyncio.Event) -> None:
    """Serve /metrics and /healthz of an open App at the host and the metrics port of its settings.

    Raises:
        OpenToStrangers: it would listen beyond loopback without a key.
        CannotListen: the address is taken.
    """

    async def metrics(_request: Request) -> Response:
        return Response(app.exposition.own(), headers={"content-type": METRICS})

    async def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    refuse_open_doors(app.settings)
    site = Starlette(routes=[Route("/metrics", metrics), Route("/healthz", health)])
    with listen(app.settings.host, app.settings.metrics_port or 0) as listening:
        log.info("metrics at %s/metrics", url_of(listening))
        await serve_on(listening, Access(site, key_of(app.settings)), stopping, patience=PATIENCE)
