"""What a provider of models says when something goes wrong, as what it means for the run."""

from __future__ import annotations

import email.utils
import math
from datetime import UTC, datetime

from eventwright.tools.contract import NotDone
from eventwright.tools.models import ModelMisconfigured, ModelRefused, ModelUnavailable

#: HTTP statuses under 500 after which the same request may succeed later.
PASSING_STATUSES = (408, 409, 425, 429)

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
        seconds = None if response is None else _retry_after(response.headers.get("retry-after"))
        return ModelUnavailable(f"the model is not available now: {words}", retry_after=seconds)
    return ModelMisconfigured(f"the model's provider does not accept the request ({hint}): {words}")


def _retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None if it holds neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def clip(words: object, longest: int = 300) -> str:
    """A provider's words, short enough for an error's message."""
    text = str(words)
    return text if len(text) <= longest else text[:longest] + "…"
