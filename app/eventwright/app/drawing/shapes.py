"""A sheet to draw on: the few shapes of our pictures as SVG, in colours that can be read on white and on black.

No style sheet, no script, no ids: several pictures on one page do not get into each other's way.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from eventwright.app.drawing.layering import Point

Attributes = dict[str, str | float | None]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
#: Text and lines on the page itself, whose colour we do not know: a grey in the middle.
GREY = "#7b8494"
FAINT = "#9aa3b25c"
#: Text on our own boxes, which are light everywhere.
INK = "#1e2533"

_NARROW, _WIDE = set("iljtfrI.,:;'|!()[]{}·` "), set("mwMWGOQ@%—…")


def width_of(words: str, size: float, *, bold: bool = False) -> float:
    """About how many pixels the words take, in whatever font the reader has; rather too many than too few."""
    ems = 0.0
    for sign in words:
        if sign in _NARROW:
            ems += 0.36
        elif ord(sign) > 0x2E7F:
            ems += 1.05
        else:
            ems += 0.9 if sign in _WIDE else 0.7 if sign.isupper() else 0.6
    return ems * size * (1.1 if bold else 1.0)


def shortened(words: str, most: int) -> str:
    """The words on one line, of at most so many signs."""
    line = " ".join(words.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


class Sheet:
    """Collects shapes; coordinates in pixels, from the top left.

    Args:
        title: what the picture shows, for readers who hear it.
    """

    def __init__(self, title: str) -> None:
        self._root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
        self._root.set("font-family", FONT)
        self._add("title", {}, text=title)

    def _add(self, tag: str, attributes: Attributes, *, hint: str = "", text: str = "") -> None:
        written = {name: _written(value) for name, value in attributes.items() if value is not None}
        element = ElementTree.SubElement(self._root, tag, written)
        if text:
            element.text = _printable(text)
        if hint:
            ElementTree.SubElement(element, "title").text = _printable(hint)

    def box(
        self,
        corner: Point,
        size: tuple[float, float],
        fill: str,
        *,
        line: str | None = None,
        thick: float = 1.2,
        round_by: float = 7,
        dashes: str | None = None,
        hint: str = "",
    ) -> None:
        """A rectangle with round corners; `hint` is shown when the pointer rests on it."""
        shape: Attributes = {
            "x": corner[0],
            "y": corner[1],
            "width": size[0],
            "height": size[1],
            "rx": round_by,
            "fill": fill,
        }
        border: Attributes = {
            "stroke": line,
            "stroke-width": None if line is None else thick,
            "stroke-dasharray": dashes,
        }
        self._add("rect", shape | border, hint=hint)

    def text(
        self, at: Point, words: str, size: float, colour: str, *, anchor: str = "middle", bold: bool = False
    ) -> None:
        """One line of words, centred on the height of `at`."""
        place: Attributes = {"x": at[0], "y": at[1] + size * 0.35, "text-anchor": anchor}
        look: Attributes = {"font-size": size, "font-weight": 600 if bold else None, "fill": colour}
        self._add("text", place | look, text=words)

    def dot(self, at: Point, radius: float, fill: str, *, line: str | None = None, hint: str = "") -> None:
        """A filled circle."""
        border: Attributes = {"stroke": line, "stroke-width": None if line is None else 1.6}
        shape: Attributes = {"cx": at[0], "cy": at[1], "r": radius, "fill": fill}
        self._add("circle", shape | border, hint=hint)

    def line(self, start: Point, end: Point, colour: str) -> None:
        """A thin straight line."""
        self._add("line", {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1], "stroke": colour})

    def path(self, steps: str, colour: str, *, dashes: str | None = None) -> None:
        """A curve, in SVG's own language."""
        look: Attributes = {"fill": "none", "stroke": colour, "stroke-width": 1.5, "stroke-dasharray": dashes}
        self._add("path", look | {"d": steps})

    def shape(self, corners: Sequence[Point], fill: str) -> None:
        """A filled polygon."""
        points = " ".join(f"{_written(x)},{_written(y)}" for x, y in corners)
        self._add("polygon", {"points": points, "fill": fill})

    def svg(self, width: float, height: float) -> str:
        """The picture, cut to this size; it shrinks with a narrow page."""
        self._root.set("viewBox", f"0 0 {_written(width)} {_written(height)}")
        self._root.set("width", _written(width))
        self._root.set("height", _written(height))
        self._root.set("style", "max-width:100%;height:auto")
        ElementTree.indent(self._root, " ")
        return ElementTree.tostring(self._root, encoding="unicode")


def _written(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def _printable(words: str) -> str:
    """XML has no place for control characters, and people may send any."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in words)
