"""Logs go to stderr: lines for a person at a terminal, one JSON object a line for everything that collects logs.

Every line goes one way, whichever library logs it (the standard `logging`, or structlog in a user's node), and every
line that is logged while a segment runs says which: run, workflow, node, worker and trace id are context variables.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from eventwright.app.commands.telling import plain
from eventwright.guardrails.redaction import Redaction

#: Libraries that tell about every step they take.
CHATTY = ("alembic", "asyncio", "httpx", "openai", "recordlinkage", "uvicorn")
#: Libraries that send somewhere in the background, and say with every batch that nobody is there.
LAMENTING = ("opentelemetry", "langsmith")
#: Seconds for which such a library has nothing new to say.
SILENCE = 60.0

Format = Literal["auto", "console", "json"]
_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
]


def log_to_stderr(level: int = logging.INFO, *, redaction: Redaction | None = None, format: Format = "auto") -> None:
    """Let every library of this process log there, from `level` on, without personal data and secrets.

    Args:
        redaction: what is hidden; by default every kind of personal data.
        format: lines for people (`console`) or for programs (`json`); `auto` looks whether there is a terminal.
    """
    redaction = redaction or Redaction()
    for_people = sys.stderr.isatty() if format == "auto" else format == "console"
    line: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # The renderer's own tracebacks show the values of variables, and so secrets and customers' words.
        structlog.processors.format_exc_info,
        lambda _logger, _method, event: redaction.for_journal(event),
        # After what looks for personal data: a time has as many digits as a card, and would be searched in every line.
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if for_people else "iso", utc=not for_people),
    ]
    if for_people:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            pad_level=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
        line += [_harmless, renderer]
    else:
        line += [structlog.processors.JSONRenderer(default=str)]
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Seldom())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()], processors=line
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


class Seldom(logging.Filter):
    """Lets a library that laments say the same thing once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is a line."""
        if not record.name.startswith(LAMENTING):
            return True
        place, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._said.get(place, -SILENCE) < SILENCE:
            return False
        self._said[place] = now
        return True


def _harmless(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A stranger's text may stand in a log line, and shall not begin another one; JSON escapes it by itself. A
    traceback keeps its lines, each of them indented."""
    return {name: _traceback(value) if name == "exception" else _told(value) for name, value in event.items()}


def _told(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value).replace("\n", "⏎")
    if isinstance(value, dict):
        return {_told(name): _told(part) for name, part in value.items()}
    return [_told(part) for part in value] if isinstance(value, list | tuple) else value


def _traceback(value: Any) -> str:
    return "\n".join(f"  {line}" for line in plain(value).split("\n"))
