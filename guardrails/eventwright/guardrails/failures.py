"""What a node has seen fail stands in the ledger: when the node runs again, after a pause or a crash, the same call
fails in the same way, and the node goes the way that it went.

That holds for one attempt of the node. Once the node has failed, or an operator has replayed the run, every call that
was not done is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from eventwright.runs.errors import storable
from eventwright.tools.contract import NotDone


def kept(error: Exception) -> tuple[dict[str, Any], ...]:
    """The failure as it can be shown again: its class and those above it, its words, its attributes.

    Nothing if it can't be: it may have been done after all, the node sees another error than this one, or an attribute
    is nothing that JSON holds. Such a call is made again.
    """
    if not isinstance(error, NotDone) or not error.seen:
        return ()
    try:
        attributes = json.dumps(vars(error), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError):
        return ()
    classes = [_name(kind) for kind in type(error).__mro__ if issubclass(kind, NotDone) and kind is not NotDone]
    return ({"classes": classes, "words": storable(str(error)), "attributes": json.loads(attributes)},)


def again(failure: Mapping[str, Any]) -> NotDone:
    """The error that was kept. Of a class that is gone, the next one that it was of."""
    known = {_name(kind): kind for kind in _below(NotDone)}
    kind = next((known[name] for name in failure["classes"] if name in known), NotDone)
    # Not by its constructor, which may take anything.
    error = kind.__new__(kind)
    error.args = (failure["words"],)
    vars(error).update(failure["attributes"])
    return error


def _below(kind: type[NotDone]) -> Iterator[type[NotDone]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
