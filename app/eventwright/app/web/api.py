"""The HTTP API: FastAPI around an open App, and a server for it inside the running loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI

from eventwright.app.composition import App
from eventwright.app.inbox.serving import serve_inbox
from eventwright.app.web import routes_events, routes_forms, routes_reviews, routes_runs, routes_system, routes_webhooks
from eventwright.app.web.access import Access, key_of, refuse_open_doors
from eventwright.app.web.bodies import PATIENCE, Bodies
from eventwright.app.web.document import describe
from eventwright.app.web.farewell import Farewell
from eventwright.app.web.form_posts import Turnstile
from eventwright.app.web.listening import listen, serve_on, url_of
from eventwright.app.web.refusals import tell_problems
from eventwright.tools.slack_answers import SlackAnswers


def create_api(
    app: App,
    *,
    ending: asyncio.Event | None = None,
    patience: float = PATIENCE,
    slack: SlackAnswers | None = None,
) -> FastAPI:
    """The API of an open App, for any ASGI server.

    Args:
        app: whose verbs and store it calls.
        ending: set when the service stops, so that requests which wait for a run end.
        patience: seconds that the body of a request may take to arrive.
        slack: tells people in Slack what became of their click.
    """
    # FastAPI's pages for the document load their scripts from a server of somebody else's.
    api = FastAPI(
        title="Eventwright",
        version=version("eventwright"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.eventwright = app
    api.state.ending = ending or asyncio.Event()
    api.state.patience = patience
    api.state.turnstile = Turnstile(app.settings.forms_per_minute)
    api.state.slack = slack or SlackAnswers()
    for routes in (routes_events, routes_webhooks, routes_forms, routes_runs, routes_reviews, routes_system):
        api.routes.extend(routes.router.routes)  # as they are: `include_router` reads every signature once more
    if app.settings.inbox:
        serve_inbox(api, key_of(app.settings))
    tell_problems(api)
    api.add_middleware(Access, key=key_of(app.settings))
    api.add_middleware(Bodies)
    api.add_middleware(Farewell, ending=api.state.ending)
    api.openapi = partial(_document, api)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return api


async def serve_api(
    app: App,
    stopping: asyncio.Event,
    *,
    on_ready: Callable[[str], None] | None = None,
    patience: float = PATIENCE,
) -> None:
    """Serve the API of an open App at the host and port of its settings until `stopping` is set.

    Requests that are under way get a few seconds to end. Signals are the caller's business.

    Args:
        app: whose API it is.
        stopping: ends it.
        on_ready: called with the URL once connections are accepted.
        patience: seconds that the head of a request may take, and as many that its body may.

    Raises:
        OpenToStrangers: it would listen beyond loopback without a key.
        CannotListen: the address is taken.
    """
    refuse_open_doors(app.settings)
    ending = asyncio.Event()
    api = create_api(app, ending=ending, patience=patience)
    with listen(app.settings.host, app.settings.port) as listening:
        if on_ready is not None:
            # The socket accepts since it listens; who comes before the server looks is not turned away.
            on_ready(url_of(listening))
        await serve_on(listening, api, stopping, patience=patience, on_end=ending.set)


def _document(api: FastAPI) -> dict[str, object]:
    """The API's description, made once."""
    if api.openapi_schema is None:
        api.openapi_schema = describe(api)
    return api.openapi_schema
