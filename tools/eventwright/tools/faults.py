"""What a provider of models says when something goes wrong, as what it means for the run."""

from __future__ import annotations

import email.utils
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from eventwright.tools.contract import NotDone
from eventwright.tools.models import ModelMisconfigured, ModelRefused, ModelUnavailable

#: HTTP statuses under 500 after which the same request may succeed later.
PASSING_STATUSES = (408, 409, 425, 429)

#: No provider keeps a run waiting for longer than this, whatever it says, in seconds.
LONGEST_WAIT = 86_400.0

#: How providers call it that a filter of theirs stopped the answer.
FILTERED = ("content_filter", "content_policy_violation")


def fault(error: Exception, *, hint: str = "check key, base URL and model name") -> NotDone:
    """What the provider's refusal of a request means.

    Args:
        hint: what an operator should look at if the request itself was not accepted.
    """
    words = clip(error)
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if getattr(error, "code", None) in FILTERED:
        return ModelRefused(f"the provider's filter refused the question: {words}")
    if getattr(error, "is_retryable", False) or status in PASSING_STATUSES or (status or 0) >= 500:
        seconds = None if response is None else retry_after(response.headers)
        return ModelUnavailable(f"the model is not available now: {words}", retry_after=seconds)
    return ModelMisconfigured(f"the model's provider does not accept the request ({hint}): {words}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from the header `Retry-After-Ms` of OpenAI, or from `Retry-After`, which holds seconds or a date; None if
    they hold neither."""
    waits = (_seconds(headers.get("retry-after-ms"), 0.001), _seconds(headers.get("retry-after"), 1.0))
    wait = next((wait for wait in waits if wait is not None), None)
    return None if wait is None else min(max(wait, 0.0), LONGEST_WAIT)


def _seconds(header: str | None, unit: float) -> float | None:
    if header is None:
        return None
    try:
        seconds = float(header) * unit
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return seconds if math.isfinite(seconds) else None


def clip(words: object, longest: int = 300) -> str:
    """A provider's words, short enough for an error's message."""
    text = str(words)
    return text if len(text) <= longest else text[:longest] + "…"
