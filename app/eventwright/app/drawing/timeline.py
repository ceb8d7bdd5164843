"""How a run went, drawn: its states as bands, and a lane for each node with its calls and its questions.

Time is a row of moments, one for each entry of the journal that shows; a moment is as wide as the words on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from eventwright.app.drawing.shapes import FAINT, GREY, INK, Sheet, shortened, width_of
from eventwright.runs.event import canonical
from eventwright.runs.records import Effect, JournalEntry, JournalKind, Review, ReviewState, Run
from eventwright.runs.states import RunState

BAND, ROW, LANE_GAP = 30.0, 26.0, 12.0
WORDS, SMALL = 12.0, 10.5
#: The least room of a moment, and the longest words in a box.
MOMENT, LONGEST = 10.0, 44
MARGIN = 12.0

STATE_FILL = {
    RunState.RECEIVED: "#d7dde6",
    RunState.PROCESSING: "#b9d4f8",
    RunState.PENDING_APPROVAL: "#fbd98a",
    RunState.WAITING: "#ddd0f5",
    RunState.RETRYING: "#f9c79b",
    RunState.FAILED: "#f5aaa6",
    RunState.COMPLETED: "#a9dfb8",
    RunState.CANCELLED: "#d8d3cd",
}
DONE, FAILED, DOUBT, ASKED, CLOSED = "#d3f0dc", "#fad4d1", "#ece3fb", "#fdeec6", "#e4e7ec"
LINES = {DONE: "#57a773", FAILED: "#d0635c", DOUBT: "#9278c9", ASKED: "#d99a1c", CLOSED: "#9aa3b2"}
#: The lane of what belongs to no node.
RUN_LANE = "run"


@dataclass(frozen=True)
class Bar:
    """Something that began at one moment and ended before another."""

    lane: str
    start: int
    end: int
    words: str
    fill: str
    hint: str = ""
    open: bool = False

    @property
    def width(self) -> float:
        """The room its words need."""
        return width_of(self.words, WORDS) + 18


@dataclass(frozen=True)
class Band:
    """A state that the run was in, from one moment to another."""

    state: RunState
    start: int
    end: int
    words: str
    lasted: str

    @property
    def width(self) -> float:
        """The room its words need."""
        return max(width_of(self.words, WORDS, bold=True), width_of(self.lasted, SMALL)) + 22


def draw_timeline(
    run: Run, journal: Sequence[JournalEntry], effects: Sequence[Effect], reviews: Sequence[Review]
) -> str:
    """The run as an SVG picture; see `pictures.timeline_picture`."""
    shown = [entry for entry in journal if _shows(entry)]
    bands = _bands(run, shown)
    bars = [*_calls(shown, effects), *_questions(shown, reviews), *_remarks(shown)]
    lanes = list(dict.fromkeys(bar.lane for bar in sorted(bars, key=lambda bar: bar.start)))
    rows = {lane: _rows([bar for bar in bars if bar.lane == lane]) for lane in lanes}
    left = MARGIN + max((width_of(shortened(lane, 24), WORDS) + 14 for lane in lanes), default=0.0)
    edges = _edges(len(shown), [*bands, *bars], left)
    sheet = Sheet(f"How a run of {run.workflow} went: it is {_state_words(run, run.state)}")
    right, top = edges[-1], MARGIN + BAND + (18 if any(band.lasted for band in bands) else 6)
    for band in bands:
        _draw_band(sheet, band, edges)
    for lane in lanes:
        sheet.line((MARGIN, top), (right, top), FAINT)
        sheet.text((MARGIN, top + LANE_GAP / 2 + ROW / 2), shortened(lane, 24), WORDS, GREY, anchor="start")
        for number, row in enumerate(rows[lane]):
            for bar in row:
                _draw_bar(sheet, bar, edges, top + LANE_GAP / 2 + number * ROW)
        top += len(rows[lane]) * ROW + LANE_GAP
    return sheet.svg(right + MARGIN, top + MARGIN / 2)


def _shows(entry: JournalEntry) -> bool:
    """A verdict shows only where it refused; what it allowed or asked stands in the next entry."""
    if entry.kind is JournalKind.VERDICT:
        return any(stage["verdict"] == "deny" for stage in entry.data["stages"])
    # What a call takes of its budgets is told by the journal; where they ran out, the refusal is drawn.
    return entry.kind is not JournalKind.BUDGET


# -- what is drawn ---------------------------------------------------------------------------------------------------


def _bands(run: Run, shown: Sequence[JournalEntry]) -> list[Band]:
    moves = [(index, entry) for index, entry in enumerate(shown) if entry.kind is JournalKind.TRANSITION]
    bands = []
    for (start, entry), following in zip(moves, [*moves[1:], None], strict=True):
        end = len(shown) if following is None else following[0]
        state = RunState(entry.data["to"])
        lasted = ""
        if following is not None and entry.at is not None and following[1].at is not None:
            lasted = in_words(following[1].at - entry.at)
        words = _state_words(run, state) if following is None else _spoken(state)
        types = [name for one in entry.data.get("waiting_for", ()) for name in one["types"]]
        words = shortened(" · ".join([words, *dict.fromkeys(types)]), LONGEST)
        bands.append(Band(state, start, end, words, lasted))
    return bands


def _state_words(run: Run, state: RunState) -> str:
    why = run.outcome or run.reason
    return f"{_spoken(state)} · {_spoken(why)}" if why and state is run.state else _spoken(state)


def _spoken(word: str) -> str:
    return word.replace("_", " ")


def in_words(span: timedelta) -> str:
    """About how long it took; nothing for what a person would call at once."""
    seconds = span.total_seconds()
    for unit, length in (("days", 172_800), ("hours", 7_200), ("minutes", 120), ("seconds", 2)):
        if seconds >= length:
            return unit
    return ""


_ENDS = {
    JournalKind.EFFECT_DONE: ("✓", DONE),
    JournalKind.EFFECT_FAILED: ("✕", FAILED),
    JournalKind.EFFECT_IN_DOUBT: ("?", DOUBT),
}


def _calls(shown: Sequence[JournalEntry], effects: Sequence[Effect]) -> list[Bar]:
    """Each attempt of each call, from its intention to its end; a read has an end only."""
    ledger = {effect.key: effect for effect in effects}
    begun: dict[str, int] = {}
    bars = []
    for index, entry in enumerate(shown):
        key = str(entry.data.get("effect"))
        if entry.kind is JournalKind.EFFECT_INTENDED:
            if key in begun:
                bars.append(_call(shown[begun[key]], ledger.get(key), (begun[key], begun[key] + 1), ("…", CLOSED)))
            begun[key] = index
        elif entry.kind in _ENDS:
            bars.append(_call(entry, ledger.get(key), (begun.pop(key, index), index + 1), _ENDS[entry.kind]))
    for start in begun.values():
        entry = shown[start]
        effect = ledger.get(str(entry.data["effect"]))
        bars.append(_call(entry, effect, (start, len(shown)), ("…", CLOSED), open=True))
    return bars


def _call(
    entry: JournalEntry,
    effect: Effect | None,
    span: tuple[int, int],
    look: tuple[str, str],
    *,
    open: bool = False,
) -> Bar:
    sign, fill = look
    tool, attempt = str(entry.data["tool"]), int(entry.data.get("attempt", 1))
    words = f"{sign} {tool}" + (f" · attempt {attempt}" if attempt > 1 else "")
    hint = [f"{tool} ({entry.data.get('class')})"]
    if effect is not None:
        hint.append(shortened(canonical(effect.arguments).decode(), 400))
    if entry.data.get("error"):
        hint.append(str(entry.data["error"]))
    return Bar(entry.node or RUN_LANE, *span, shortened(words, LONGEST), fill, "\n".join(hint), open)


_CLOSED = {
    ReviewState.EXPIRED: "deadline",
    ReviewState.SUPERSEDED: "no longer asked",
    ReviewState.CANCELLED: "run cancelled",
}


def _questions(shown: Sequence[JournalEntry], reviews: Sequence[Review]) -> list[Bar]:
    """What people were asked, from the question to the answer."""
    opened: dict[str, int] = {}
    decided: dict[str, int] = {}
    for index, entry in enumerate(shown):
        if entry.kind is JournalKind.REVIEW_OPENED:
            opened[entry.data["review"]] = index
        elif entry.kind is JournalKind.DECISION:
            decided[entry.data["review"]] = index
    bars = []
    for review in reviews:
        start = opened.get(review.id)
        if start is None:
            continue
        is_open = review.state is ReviewState.OPEN
        end = decided[review.id] + 1 if review.id in decided else len(shown) if is_open else start + 1
        hint = [f"{_spoken(review.kind)}: {review.question}"]
        if review.arguments is not None:
            hint.append(shortened(canonical(review.arguments).decode(), 400))
        if review.decision is not None and review.decision.comment:
            hint.append(f"“{review.decision.comment}”")
        fill = ASKED if is_open or review.id in decided else CLOSED
        words = shortened(f"{_spoken(review.kind)} · {_answer(review)}", LONGEST)
        bars.append(Bar(review.node, start, end, words, fill, "\n".join(hint), is_open))
    return bars


def _answer(review: Review) -> str:
    if review.decision is not None:
        return f"{review.decision.by}: {review.decision.type}"
    return _CLOSED.get(review.state, "who answers?")


def _remarks(shown: Sequence[JournalEntry]) -> list[Bar]:
    """What else is worth knowing: refusals and notes, each a moment of its own."""
    bars = []
    for index, entry in enumerate(shown):
        lane, text = entry.node or RUN_LANE, ""
        if entry.kind is JournalKind.VERDICT:
            refused = next(stage for stage in entry.data["stages"] if stage["verdict"] == "deny")
            text, fill = f"✕ {entry.data['tool']} denied: {refused['rule']}", FAILED
            hint = str(refused.get("reason", ""))
        elif entry.kind is JournalKind.NOTE:
            text, fill, hint = str(entry.data.get("text", _spoken(entry.kind))), CLOSED, entry.actor
        if text:
            bars.append(Bar(lane, index, index + 1, shortened(text, LONGEST), fill, hint))
    return bars


# -- where it stands -------------------------------------------------------------------------------------------------


def _rows(bars: Sequence[Bar]) -> list[list[Bar]]:
    """The bars of a lane in as many rows as it needs for none to overlap."""
    rows: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.end)):
        row = next((row for row in rows if row[-1].end <= bar.start), None)
        if row is None:
            rows.append([bar])
        else:
            row.append(bar)
    return rows


def _edges(moments: int, spans: Sequence[Band | Bar], left: float) -> list[float]:
    """Where each moment begins, and where the last one ends: a span gets room for its words, the short ones first."""
    widths = [MOMENT] * max(moments, 1)
    for span in sorted(spans, key=lambda span: span.end - span.start):
        lacking = span.width - sum(widths[span.start : span.end])
        for index in range(span.start, span.end):
            widths[index] += max(lacking, 0.0) / (span.end - span.start)
    edges = [left]
    for width in widths:
        edges.append(edges[-1] + width)
    return edges


def _draw_band(sheet: Sheet, band: Band, edges: Sequence[float]) -> None:
    start, end = edges[band.start], edges[band.end]
    hint = f"{band.state}: {band.state.meaning}"
    sheet.box((start + 1, MARGIN), (end - start - 2, BAND), STATE_FILL[band.state], round_by=6, hint=hint)
    sheet.text(((start + end) / 2, MARGIN + BAND / 2), band.words, WORDS, INK, bold=True)
    if band.lasted:
        sheet.text(((start + end) / 2, MARGIN + BAND + 9), band.lasted, SMALL, GREY)


def _draw_bar(sheet: Sheet, bar: Bar, edges: Sequence[float], top: float) -> None:
    start, end = edges[bar.start], edges[bar.end]
    sheet.box(
        (start + 2, top + 2),
        (end - start - 4, ROW - 4),
        bar.fill,
        line=LINES[bar.fill],
        round_by=(ROW - 4) / 2,
        dashes="4 3" if bar.open else None,
        hint=bar.hint,
    )
    sheet.text(((start + end) / 2, top + ROW / 2), bar.words, WORDS, INK)
