"""The clients of the tools for sales: the book of leads, enrichment, Slack. Which, the settings and secrets say.

Each is imported only where it is set up: Slack's library alone takes a fifth of a second.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from eventwright.app.settings import Settings

#: Names of secrets: `EVENTWRIGHT_SECRET_HUBSPOT_TOKEN` and so on.
HUBSPOT, ENRICHMENT, SLACK = "hubspot_token", "enrichment_token", "slack_token"


async def sales_clients(settings: Settings, stack: AsyncExitStack) -> list[object]:
    """The book of leads (in HubSpot where its token is given, else in a file of the home), and what else is set up."""
    secrets = settings.secrets.named
    clients: list[object] = []
    if HUBSPOT in secrets:
        from eventwright.tools.hubspot import HubSpot

        clients.append(await stack.enter_async_context(HubSpot.open(secrets[HUBSPOT])))
    else:
        from eventwright.tools.leads_file import LeadsFile

        clients.append(await stack.enter_async_context(LeadsFile.open(settings.home / "leads.db")))
    if settings.enrichment_url:
        from eventwright.tools.enrichment import Enrichment

        opened = Enrichment.open(settings.enrichment_url, token=secrets.get(ENRICHMENT, ""))
        clients.append(await stack.enter_async_context(opened))
    if SLACK in secrets:
        from eventwright.tools.slack import Slack

        clients.append(Slack(secrets[SLACK]))
    return clients
