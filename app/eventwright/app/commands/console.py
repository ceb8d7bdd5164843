"""How the command line speaks: screens for people, JSON for programs, one line for an error. Nothing else on stdout."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from eventwright.app.commands.telling import plain
from eventwright.runs.errors import EventwrightError, StoreUnavailable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Columns of a screen that goes into a file or a pipe: nothing is cut there that a terminal would show.
PIPE_WIDTH = 10_000

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
By = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who says so; by default you, as this machine knows you.")
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask back.")]


class NotOne(EventwrightError, LookupError):
    """A part of an id fits several things, or nothing."""

    def __init__(self, kind: str, part: str, candidates: list[str], where: str) -> None:
        self.part, self.candidates = part, candidates
        if candidates:
            listed = "".join(f"\n  {candidate}" for candidate in candidates)
            several = f"{kind.removesuffix('y')}ies" if kind.endswith("y") else f"{kind}s"
            super().__init__(f"{part!r} fits several {several}; give more of the id:{listed}")
        else:
            super().__init__(f"no {kind} has an id that begins or ends with {part!r}; `{where}` lists them")


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: no markup, and no colours where nobody sees them."""
    from rich.console import Console

    stream: IO[str] = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def show(screen: RenderableType) -> None:
    """A screen on stdout. A pipe gets it without the spaces that fill a terminal's lines."""
    out = console()
    if out.is_terminal:
        out.print(screen, crop=False)  # a command that is too long for a line is the terminal's to wrap, and whole
        return
    with out.capture() as captured:
        out.print(screen, crop=False)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def show_json(value: Any, *, stderr: bool = False) -> None:
    """One JSON value, on stdout. Escaped to ASCII, so that no terminal and no encoding can trip over it."""
    from pydantic_core import to_jsonable_python

    stream = sys.stderr if stderr else sys.stdout
    stream.write(json.dumps(to_jsonable_python(value), indent=2) + "\n")


def perform(work: Coroutine[Any, Any, int | None], *, as_json: bool = False) -> None:
    """Do a command's work. An error becomes one line, or with `as_json` a document, on stderr, and exit code 1."""
    _warn_in_lines()
    try:
        _load()
        code = asyncio.run(work)
    except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
        raise
    except Exception as error:
        work.close()
        if debugging():
            raise
        complain(error, as_json=as_json)
        raise typer.Exit(1) from None
    if code:
        raise typer.Exit(code)


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(f"{record.levelname.lower()}: {record.getMessage()}")


def _warn_in_lines() -> None:
    """The logs of a command that answers and ends: warnings, each a plain line. A process that stays has others."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    logging.getLogger().handlers = [handler]
    logging.getLogger().setLevel(logging.WARNING)


def _load() -> None:
    """Import what every command works with. The collector would walk through it again and again, now and at the end,
    which takes a third of the time of a short command."""
    gc.disable()
    try:
        importlib.import_module("eventwright.app.composition")
    finally:
        gc.freeze()
        gc.enable()


def complain(error: Exception, *, as_json: bool) -> None:
    """Say on stderr what went wrong and what to do."""
    if as_json:
        show_json(document_of(error), stderr=True)
        return
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("error: ", "bold red"), plain(_words(error))), soft_wrap=True)


def document_of(error: Exception) -> Mapping[str, Any]:
    """An error as the API would tell it, but with its own words in every case: who types here may read them."""
    from eventwright.app.wire.problems import ProblemType, problem_of

    if isinstance(error, NotOne):
        return {
            "type": "about:blank",
            "title": "The id fits several things, or none.",
            "detail": _words(error),
            "candidates": error.candidates,
        }
    problem = problem_of(error)
    if problem.type is ProblemType.INTERNAL:
        return {"type": "about:blank", "title": type(error).__name__, "detail": _words(error)}
    return problem.document() | {"detail": _words(error)}


def _words(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_words(one) for one in error.exceptions)
    if isinstance(error, StoreUnavailable):  # what a driver says goes on for pages
        return f"{str(error).splitlines()[0]}; `eventwright doctor` looks into it"
    if isinstance(error, EventwrightError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first} (EVENTWRIGHT_DEBUG=1 shows where)"


def debugging() -> bool:
    """Whether the one who types wants tracebacks."""
    return bool(os.environ.get("EVENTWRIGHT_DEBUG"))


def sure(question: str, *, yes: bool) -> None:
    """Ask back, where there is somebody to ask. Raises typer.Abort on a no."""
    if yes or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    # asyncio.run keeps the first Ctrl-C for its loop, which stands still while somebody is asked.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        typer.confirm(question, abort=True)
    finally:
        signal.signal(signal.SIGINT, before)
