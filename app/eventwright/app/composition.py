"""The composition root: the one place where real things meet. Worker, API, command line, notebook and tests open it.

async with open_app(Settings(), works=True) as app:
    await app.work(stopping)
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from eventwright.app.invoice_clients import invoice_clients
from eventwright.app.lifespans import open_lifespans
from eventwright.app.loading import load_workflows
from eventwright.app.observing.exposition import Exposition
from eventwright.app.observing.langsmith_tracing import tracing_to_langsmith
from eventwright.app.observing.observer import Observer, tools_of
from eventwright.app.observing.spans import Spans, spans_here
from eventwright.app.observing.watches import ModelNames
from eventwright.app.quote_clients import quote_clients
from eventwright.app.redacting import journal_redaction, leaving_redaction
from eventwright.app.sales_clients import sales_clients
from eventwright.app.settings import Settings
from eventwright.app.threads import make_room_for_threads
from eventwright.graphs.recorded_models import recorded_models
from eventwright.graphs.runner import Runner
from eventwright.graphs.workflow import Workflow, Workflows
from eventwright.queue.bells import BellRinger
from eventwright.queue.database_changes import Drain, open_inbox
from eventwright.queue.embedded import embedded_valkey
from eventwright.queue.engine import Engine
from eventwright.queue.gathering import Gatherer
from eventwright.queue.keeper import Keeper
from eventwright.queue.mail_source import MailSource
from eventwright.queue.scheduler import Scheduler
from eventwright.queue.sweep import Sweep
from eventwright.queue.wakeups import Bell, SilentBell, Transport
from eventwright.queue.worker import Worker
from eventwright.runs.heartbeats import heartbeats
from eventwright.runs.migrate import upgrade
from eventwright.runs.store import Store
from eventwright.tools.billing_ledger import BillingLedger
from eventwright.tools.building import Models, build_models
from eventwright.tools.contract import Resources
from eventwright.tools.crm import Crm
from eventwright.tools.mail import Mailer
from eventwright.tools.mailbox import Address
from eventwright.tools.payments import PaymentLedger
from eventwright.tools.secrets import Secrets
from eventwright.tools.stripe_billing import Billing


@dataclass
class App:
    """One process of Eventwright, open: its store, its engine, its way to wake workers."""

    settings: Settings
    store: Store
    workflows: Workflows
    engine: Engine
    transport: Transport
    #: The Redis in use; None when the sweep is the transport.
    redis_url: str | None
    ringer: BellRinger | None
    resources: Resources
    exposition: Exposition
    gatherer: Gatherer

    async def work(self, stopping: asyncio.Event) -> None:
        """Be a worker until `stopping` is set: take runs, keep leases, sweep; then drain, and hand back what is left.

        A worker serves once.
        """
        settings, engine, times = self.settings, self.engine, self.engine.times
        patience = settings.drain_seconds
        sweep = Sweep(engine, self.ringer, lanes=settings.lanes, concurrency=settings.concurrency)
        beats = heartbeats(
            settings.database, engine.worker, engine.active, every=times.heartbeat, lease_seconds=times.lease
        )
        mail_source = _mail_source(engine, settings)
        engine.on_news.append(sweep.nudge)
        async with beats, asyncio.TaskGroup() as tasks:
            tasks.create_task(sweep.run(stopping, drain_seconds=patience), name="sweep")
            tasks.create_task(Keeper(self.store, settings.keep).run(stopping), name="keeper")
            tasks.create_task(Scheduler(engine).run(stopping), name="scheduler")
            for drain in self.drains():
                tasks.create_task(drain.run(stopping), name="database changes")
            if mail_source is not None:
                tasks.create_task(mail_source.run(stopping), name="mail source")
            if self.redis_url is not None:
                worker = Worker(
                    self.redis_url, lanes=settings.lanes, concurrency=settings.concurrency, drain_seconds=patience
                )
                tasks.create_task(worker.serve(engine.advance, stopping), name="rq worker")
            await stopping.wait()
            engine.drain()
        engine.on_news.remove(sweep.nudge)

    def drains(self) -> list[Drain]:
        """What takes the changes out of the databases that the settings name."""
        databases = self.settings.databases.items()
        return [Drain(self.engine, open_inbox(name, url)) for name, url in databases]


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    workflows: Iterable[Workflow] | None = None,
    resources: Sequence[object] = (),
    works: bool = False,
    rings: bool = True,
    spans: Spans | None = None,
) -> AsyncIterator[App]:
    """Open everything a process needs, on a database at the newest revision.

    Args:
        settings: where everything is.
        workflows: instead of those that the settings name.
        resources: clients for tools, beside those that the settings describe and those that workflows bring along; of
            one class the last one counts.
        works: whether runs are executed here, so that tools need their clients.
        rings: whether workers are woken through Redis; without, their sweep finds out within seconds.
        spans: how spans are recorded; by default through OpenTelemetry's provider, if this process has one.
    """
    async with AsyncExitStack() as stack:
        settings.home.mkdir(parents=True, exist_ok=True)
        await upgrade(settings.database)
        declared = Workflows(load_workflows(settings.workflows) if workflows is None else workflows)
        given = (settings.secrets, *resources)
        worker, redact = process_name(), journal_redaction(declared, Secrets.of(Resources(given)))
        observer = Observer(worker=worker, redact=redact, tools=tools_of(declared), spans=spans or spans_here())
        store = await stack.enter_async_context(Store.open(settings.database, redact=redact, telemetry=observer))
        clients = Resources((*(await _clients(settings, declared, stack) if works else ()), *given))
        if works:
            observer.asks(ModelNames.of(Models.of(clients)))
            stack.enter_context(recorded_models())
            await stack.enter_async_context(tracing_to_langsmith(leaving_redaction(declared, Secrets.of(clients))))
            make_room_for_threads(settings.concurrency)
        engine = Engine(
            store,
            declared,
            Runner(store, clients, lanes=settings.lanes),
            worker=worker,
            times=settings.times,
            most_backlog=settings.max_backlog,
            roles=settings.who_has_which_role,
        )
        redis_url = await _redis(settings, stack) if rings else None
        transport: Transport = SilentBell() if redis_url is None else Bell(redis_url)
        stack.push_async_callback(transport.close)
        ringer = None
        if redis_url is not None:
            ringer = BellRinger(store, transport)
            engine.on_news.append(ringer.nudge)
            await stack.enter_async_context(ringer.ringing())
        exposition, gatherer = Exposition(observer.metrics, store), Gatherer(store)
        await stack.enter_async_context(gatherer.gathering())
        yield App(
            settings, store, engine.workflows, engine, transport, redis_url, ringer, clients, exposition, gatherer
        )


async def _redis(settings: Settings, stack: AsyncExitStack) -> str | None:
    if settings.redis_url == "none":
        return None
    return settings.redis_url or await stack.enter_async_context(embedded_valkey(settings.home))


async def _clients(settings: Settings, workflows: Workflows, stack: AsyncExitStack) -> list[object]:
    """The clients of the shipped tools, then those of the workflows."""
    models = build_models(settings.model_settings)
    stack.push_async_callback(models.close)
    clients: list[object] = [
        models.primary,  # for tools of users that want a bare chat model
        models,
        models.providers,
        await stack.enter_async_context(Crm.open(settings.home / "crm.db")),
        await stack.enter_async_context(PaymentLedger.open(settings.home / "payments.db")),
        await stack.enter_async_context(_billing(settings)),
    ]
    clients += await sales_clients(settings, stack)
    clients += await quote_clients(settings, stack)
    clients += await invoice_clients(settings, stack)
    if settings.smtp_url:
        clients.append(Mailer(settings.smtp_url))
    return [*clients, *await open_lifespans(workflows.versions(), settings.lanes, stack)]


def _mail_source(engine: Engine, settings: Settings) -> MailSource | None:
    """What reads the mailbox, if there is one. Raises BadImapUrl."""
    if not settings.imap_url:
        return None
    # What our own mail comes from, so that it is known when it comes back.
    own = (Mailer(settings.smtp_url).sender,) if settings.smtp_url else ()
    return MailSource(engine, Address.from_url(settings.imap_url), own=own)


def _billing(settings: Settings) -> AbstractAsyncContextManager[Billing]:
    """Stripe, or the ledger that stands in for it."""
    if settings.stripe_api_key is None:
        return BillingLedger.open(settings.home / "billing.db")
    # Here, because the import of its library takes a third of a second, and most do without it.
    from eventwright.tools.stripe_client import StripeBilling

    return StripeBilling.open(settings.stripe_api_key.get_secret_value(), api_base=settings.stripe_api_base)


def process_name() -> str:
    """The name under which this process claims runs: host, process, and a part of its own for a restarted pid."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
