"""Serial keys: what an event's runs share with others that must wait for them, the number of an invoice say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from pydantic import BaseModel

from eventwright.guardrails.text import clean_value
from eventwright.runs.errors import EventwrightError, storable
from eventwright.runs.event import Event

#: A field of the payload (`"invoice_id"`, `"customer.id"`), or a function of the event; None from it is no order.
SerialKey: TypeAlias = str | Callable[[Event], str | None]

#: Letters that a key may have.
LONGEST = 256


class BadKey(EventwrightError, ValueError):
    """An event does not say with which others its runs stand in line: its trigger's `key` gives no usable key, or
    its `only_if` no answer."""

    def __init__(self, event_type: str, at: str, problem: str) -> None:
        self.event_type = event_type
        #: In the form of an invalid payload's faults.
        self.faults = [{"at": at, "problem": problem}]
        super().__init__(f"the serial key of {event_type!r} is not usable: {at}: {problem}")


def serial_key(key: SerialKey, event: Event, payload: Any) -> str | None:
    """The key of the event's runs, or None if they are in nobody's way.

    Args:
        key: as the trigger declares it.
        event: as it came in; a function gets it without hidden characters.
        payload: of the event, as the trigger has validated it.

    Raises:
        BadKey: the payload has no such field, the function raised, or what they give is no text, too long, or empty.
    """
    if isinstance(key, str):
        found, at = _field(payload, key), key
        if found is None:
            raise BadKey(event.type, at, "the payload has no such field, but its trigger's key= names it")
    else:
        found, at = called(key, event), key_words(key)
        if found is None:
            return None
    text = str(found) if type(found) is int else found
    if not isinstance(text, str):
        raise BadKey(event.type, at, f"a key is a text or an integer, not {type(found).__name__}")
    if not 0 < len(text) <= LONGEST or storable(text) != text:
        raise BadKey(event.type, at, f"a key has 1 to {LONGEST} letters that a database can keep, not {text[:40]!r}")
    return text


def key_words(key: str | Callable[[Event], Any]) -> str:
    """The key as it is called for people: the field, or the name of the function."""
    return key if isinstance(key, str) else getattr(key, "__name__", type(key).__name__)


def visible(event: Event) -> Event:
    """The event without hidden characters."""
    return replace(event, data=clean_value(event.data), subject=clean_value(event.subject))


def called(function: Callable[[Event], Any], event: Event) -> Any:
    """What a trigger's function says of the event. Raises BadKey: it failed."""
    try:
        return function(visible(event))
    except Exception as error:
        raise BadKey(event.type, key_words(function), f"it raised {type(error).__name__}: {error}") from error


def _field(payload: Any, path: str) -> Any:
    """What stands at this place of the payload; None where nothing does."""
    found = payload.model_dump(mode="json") if isinstance(payload, BaseModel) else payload
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
