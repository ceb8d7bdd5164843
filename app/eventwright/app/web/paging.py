"""What the routes share: the app behind them, names that may stand in an address, pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Query, Request

from eventwright.app.composition import App
from eventwright.app.wire.problems import MEDIA_TYPE, ProblemType

Item = TypeVar("Item")

#: Whatever an id of ours can be; a database may refuse to look for anything else.
_ID = r"^[A-Za-z0-9_:.\-]+$"


async def _app_of(request: Request) -> App:
    app: App = request.app.state.eventwright
    return app


Eventwright = Annotated[App, Depends(_app_of)]
Id = Annotated[str, Path(pattern=_ID, max_length=64)]
Cursor = Annotated[
    str | None, Query(pattern=_ID, max_length=64, description="`next` of the page before; none for the first page")
]
Limit = Annotated[int, Query(ge=1, le=200, description="how many items a page has at most")]
Name = Annotated[str | None, Query(pattern=_ID, max_length=64)]


def cut(found: Sequence[Item], limit: int) -> tuple[Sequence[Item], Item | None]:
    """The page out of `limit + 1` items, and its last one if more follow."""
    items = found[:limit]
    return items, items[-1] if len(found) > limit else None


def problems(*types: ProblemType) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, or any other, for the API's document."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    meanings: dict[int, list[str]] = {}
    for problem_type in types:
        meanings.setdefault(problem_type.status.value, []).append(problem_type.meaning)
    told: dict[int | str, dict[str, Any]] = {
        status: {"description": " Or: ".join(sentences), "content": content} for status, sentences in meanings.items()
    }
    return told | {"default": {"description": "Any other problem.", "content": content}}
