"""A provider is down: the run waits for it, as long as the node's policy has patience, and spends no attempt."""

from __future__ import annotations

import random
from collections.abc import Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from eventwright.guardrails.policy import Policy
from eventwright.guardrails.segment import Segment
from eventwright.guardrails.verdicts import Outage, Postponed
from eventwright.tools.breaker import ProviderDown
from eventwright.tools.providers import Providers

if TYPE_CHECKING:
    from eventwright.guardrails.gate import Gate

#: The runs that wait for one provider come back spread over as long a time as they had to wait, but not over more,
#: and not over less. Seconds.
SPREAD_AT_MOST, SPREAD_AT_LEAST = 30.0, 1.0


async def or_wait(gate: Gate, call: Awaitable[Any]) -> Any:
    """What the call returns.

    Raises:
        Postponed: its provider is down, and the run waits until it may be asked again.
        ProviderDown: it is down, and the node's patience is over, or it has none: this counts as any failure.
    """
    for outage in gate.segment.outages.get(gate.node, ()):
        # Another process may have found that out; here, nobody may have asked yet.
        Providers.of(gate.segment.resources).suspect(outage.providers)
    try:
        return await call
    except ProviderDown as down:
        raise await waiting(gate.segment, gate.node, gate.policy, down) from down


async def waiting(segment: Segment, node: str, policy: Policy, down: ProviderDown) -> Postponed | ProviderDown:
    """What becomes of a call whose provider is down: the run waits, or the node sees that."""
    now = await segment.store.now()
    earlier = [one.since for one in segment.outages.get(node, ()) if one.providers == down.providers]
    since = min(earlier, default=now)
    left = since + policy.waits_for_providers - now
    if left <= timedelta(0):
        return down
    spread = min(max(down.retry_after, SPREAD_AT_LEAST), SPREAD_AT_MOST)
    wait = timedelta(seconds=down.retry_after + random.uniform(0.0, spread))
    return Postponed(now + min(wait, left), Outage(down.providers, since))
