"""Hostile text: characters that a person does not see and a model reads, and links that lead where nobody was asked.

Hidden is whatever Unicode wants to be ignored where it cannot be shown (zero-width characters, tags, marks of writing
direction, variation selectors, soft hyphens, fillers), and control characters but for tab and line ends. What joins
the parts of an emoji, or the letters of Persian and Indic words, does a visible work there, and stays.

A link is whatever a mail program or a browser might make one of. What is not understood leads to nowhere we know.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import idna
import regex

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

# -- what is hidden ----------------------------------------------------------------------------------------------------

#: How many places, and how many code points of each, are told one by one.
MOST_TOLD = 20

_HIDDEN = r"[\p{Default_Ignorable_Code_Point}\ufff9-\ufffb\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
_ANY_HIDDEN = regex.compile(_HIDDEN)
#: Of ASCII only these are hidden, and most texts are ASCII.
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\n\r"))
#: Joiners stand in words of these scripts, between two letters or after the mark that silences a vowel.
_JOINED = (
    r"\p{Arabic}\p{Syriac}\p{Mongolian}\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Gujarati}\p{Oriya}\p{Tamil}\p{Telugu}"
    r"\p{Kannada}\p{Malayalam}\p{Sinhala}\p{Khmer}\p{Myanmar}\p{Tibetan}"
)
_EMOJI = r"\p{Extended_Pictographic}\p{Emoji_Modifier}?"
#: The flags of England, Scotland and Wales, the only emoji that are made with tags.
_FLAGS = "|".join(
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in land) + "\U000e007f"
    for land in ("gbeng", "gbsct", "gbwls")
)
_SEEN_OR_HIDDEN = regex.compile(
    rf"(?P<seen>{_FLAGS}"
    rf"|{_EMOJI}[\ufe0e\ufe0f]?(?:\u200d{_EMOJI}\ufe0f?)*"
    r"|[0-9#*]\ufe0f\u20e3"
    rf"|(?<=[{_JOINED}])[\u200c\u200d](?=[{_JOINED}])"
    r"|(?<=\p{Canonical_Combining_Class=Virama})[\u200c\u200d])"
    rf"|(?P<hidden>{_HIDDEN}+)"
)


@dataclass(frozen=True)
class Found:
    """One hidden character and where it stands."""

    at: int
    character: str

    @property
    def code(self) -> str:
        """`U+202E`."""
        return code_point(self.character)


def hidden(text: str) -> list[Found]:
    """Every hidden character, in order."""
    return [Found(row.start() + place, letter) for row in _rows(text) for place, letter in enumerate(row[0])]


def clean(text: str) -> str:
    """The text without its hidden characters; to clean it twice changes nothing more."""
    return _SEEN_OR_HIDDEN.sub(r"\g<seen>", text) if _may_hide(text) else text


def mark(text: str) -> str:
    """The text for a person's eyes: `⟦U+202E⟧` where a character is hidden, `⟦U+E0049 and 41 more⟧` where many are."""
    parts, end = [], 0
    for row in _rows(text):
        more = f" and {len(row[0]) - 1} more" if len(row[0]) > 1 else ""
        parts += [text[end : row.start()], f"⟦{code_point(row[0][0])}{more}⟧"]
        end = row.end()
    return "".join([*parts, text[end:]])


def code_point(character: str) -> str:
    """`U+202E`."""
    return f"U+{ord(character):04X}"


def _may_hide(text: str) -> bool:
    if text.isascii():
        # To leave them out is several times as fast as to look for one of them.
        return len(text.encode().translate(None, _CONTROLS)) < len(text)
    return _ANY_HIDDEN.search(text) is not None


def _rows(text: str) -> Iterator[regex.Match[str]]:
    """Hidden characters, those that stand together as one match."""
    if _may_hide(text):
        yield from (match for match in _SEEN_OR_HIDDEN.finditer(text) if match.lastgroup == "hidden")


# -- in JSON -----------------------------------------------------------------------------------------------------------


def strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a JSON value with its path (`items.0.name`); the names of members too."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            inside = f"{path}.{mark(str(name))}" if path else mark(str(name))
            yield f"{inside} (its name)", str(name)
            yield from strings(item, inside)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from strings(item, f"{path}.{place}" if path else str(place))


def clean_value(value: Any) -> Any:
    """The JSON value with every string in it clean. Of two members whose names become one, the one counts whose name
    was clean."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        named = ((clean(name) if isinstance(name, str) else name, name, item) for name, item in value.items())
        clean_ones_last = sorted(named, key=lambda each: each[0] == each[1])
        return {name: clean_value(item) for name, _, item in clean_ones_last}
    if isinstance(value, list | tuple):
        return [clean_value(item) for item in value]
    return value


def hidden_in(value: Any) -> list[dict[str, Any]]:
    """What is hidden in a JSON value, one entry a string: `{"path": "text", "characters": {"U+200B": 3}}`."""
    told: list[dict[str, Any]] = []
    more = 0
    for path, text in strings(value):
        found = hidden(text)
        if found and len(told) < MOST_TOLD:
            told.append({"path": path, "characters": _counted(found)})
        elif found:
            more += 1
    return [*told, {"more": more}] if more else told


def _counted(found: Sequence[Found]) -> dict[str, int]:
    codes = Counter(each.code for each in found)
    counted = dict(codes.most_common(MOST_TOLD))
    others = len(found) - sum(counted.values())
    return counted | ({"others": others} if others else {})


# -- links -------------------------------------------------------------------------------------------------------------

#: Names that are better known as the end of a file's name than as a country's. Without a path, and with one word
#: before it, `report.py` is a file.
FILE_ENDINGS = frozenset({"cc", "md", "mk", "pl", "ps", "py", "rs", "sh", "so", "st", "tf", "ml", "la", "ai"})
#: Names at the end of hosts that no registry gives out.
SPECIAL_ENDINGS = frozenset(
    {"alt", "arpa", "example", "home", "internal", "invalid", "lan", "local", "localhost", "onion", "test"}
)
#: A link is read so far; an address that is longer is not understood.
_LONGEST = 300
#: So many links are read; nobody's letter has more.
MOST_LINKS = 200

_REST = re.compile(rf"[^\s<>\"]{{0,{_LONGEST}}}")
_SCHEME = re.compile(
    r"(?<![A-Za-z0-9])(?:https?|ftps?|wss?|file|javascript|vbscript|data|mailto|tel|sms):(?=\S)"
    r"|[A-Za-z][A-Za-z0-9+.-]{0,30}:(?=[/\\]{2})",
    re.IGNORECASE,
)
_TWO_SLASHES = re.compile(r"[/\\]{2}(?<![\w:/\\]..)(?=[^\s/\\])")
_TARGET = re.compile(
    r"\]\(\s{0,9}<?([^\s)<>]{1,300})|^[ \t]{0,3}\[[^\]\n]{1,100}\]:[ \t]{0,9}<?([^\s<>]{1,300})", re.MULTILINE
)
_ATTRIBUTE = re.compile(
    r"\b(href|src|srcset|action|formaction|background|poster)\s{0,9}=\s{0,9}[\"']?\s{0,9}([^\"'\s>]{1,300})"
    r"|\b(url)\(\s{0,9}[\"']?([^\"')\s]{1,300})",
    re.IGNORECASE,
)
_IMAGES = frozenset({"src", "srcset", "background", "poster", "url"})
_WITHOUT_HOST = frozenset({"javascript", "vbscript", "data", "file", "tel", "sms"})
_DOT = r"[.\u3002\uff0e\uff61]"
_BARE = re.compile(rf"[^\W_](?<![^\W_].)[\w-]{{0,62}}+(?:{_DOT}[^\W_][\w-]{{0,62}}+)+")
_AFTER = re.compile(r"/|:\d|\?[^\W_]")
_PLAIN_HOST = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_CLOSING = ".,;:!?'\"’”»)]}>*_~|`"


@dataclass(frozen=True)
class Link:
    """A place in a text that leads somewhere.

    Attributes:
        written: as it stands there.
        at: where it begins.
        scheme: `https`, `mailto`, …; None where none is written.
        host: the host as it would be looked up (lower case, ASCII); None if it is not understood, or there is none.
        image: whether it is loaded without a click.
    """

    written: str
    at: int
    scheme: str | None
    host: str | None
    image: bool = False

    def leads_to(self, hosts: Iterable[str]) -> bool:
        """Whether it certainly leads to one of these hosts (as `host_name` gives them) or below it."""
        known = self.host is not None and self.scheme in (None, "http", "https", "mailto")
        return known and any(self.host == host or str(self.host).endswith(f".{host}") for host in hosts)


def links(text: str) -> list[Link]:
    """The links in a text, in order, `MOST_LINKS` of them: with a scheme, `//host`, the targets of Markdown and HTML,
    and bare names of hosts.

    A bare name counts when a path or a port follows, or when it ends like a host's name does (a public suffix, or one
    of the special names such as `.example`); `report.py` is a file, `e.g.` and `3.50` are nothing. A full stop
    with no space after it may look like a host (`now.It`), and counts.
    """
    found: dict[int, Link] = {}
    for at, written, image in islice(_targets(text), MOST_LINKS):
        begins = _SCHEME.match(written)
        found.setdefault(at, _link(at, written, begins[0] if begins else "", image))
    for pattern in (_SCHEME, _TWO_SLASHES):
        for match in islice(pattern.finditer(text), MOST_LINKS):
            scheme = match[0] if pattern is _SCHEME else ""
            found.setdefault(match.start(), _link(match.start(), _rest(text, match.start()), scheme))
    reach = {link.at: link.at + len(link.written) for link in found.values()}
    bare = (match for match in _BARE.finditer(text) if _is_bare_link(text, match))
    for match in islice(_outside(bare, reach), MOST_LINKS):
        found[match.start()] = _link(match.start(), _rest(text, match.start()), "")
    return sorted(found.values(), key=lambda link: link.at)[:MOST_LINKS]


def _outside(matches: Iterable[re.Match[str]], reach: Mapping[int, int]) -> Iterator[re.Match[str]]:
    """Those that do not stand inside a link that was found before."""
    begins, end = sorted(reach, reverse=True), 0
    for match in matches:
        while begins and begins[-1] <= match.start():
            end = max(end, reach[begins.pop()])
        if match.start() >= end:
            yield match


def foreign_links(text: str, allowed: Sequence[str]) -> list[str]:
    """The links that do not certainly lead to an allowed host or below it, as they are written, each once.

    The text is read as it is after `clean`, with HTML's entities resolved, and with letters of other shapes made
    plain. Of a text with more links than are read, the last entry says so.
    """
    hosts = [host for host in map(host_name, allowed) if host is not None]
    visible = clean(text)
    readings = dict.fromkeys((visible, html.unescape(visible), unicodedata.normalize("NFKC", visible)))
    found = [link for reading in readings for link in links(reading)]
    foreign = list(dict.fromkeys(link.written for link in found if not link.leads_to(hosts)))
    return [*foreign, f"more than {MOST_LINKS} links"] if len(found) >= MOST_LINKS else foreign


def host_name(host: str) -> str | None:
    """A host's name as it would be looked up: ASCII, lower case, without a dot at its end; None if it is none."""
    name = unquote(host).lower().removesuffix(".")
    if name.startswith("[") and name.endswith("]"):
        return _address(IPv6Address, name[1:-1])
    if not _PLAIN_HOST.fullmatch(name) or "xn--" in name:
        try:
            name = idna.encode(name, uts46=True).decode("ascii").removesuffix(".")
        except (idna.IDNAError, UnicodeError):
            return None
    if re.fullmatch(r"\d+|0x[0-9a-f]*", name.rpartition(".")[2]):
        return _address(IPv4Address, name)  # a browser takes 2130706433 and 0x7f.1 for addresses; we take neither
    return name if _PLAIN_HOST.fullmatch(name) and len(name) <= 253 else None


def _address(kind: type[IPv4Address] | type[IPv6Address], written: str) -> str | None:
    try:
        return str(kind(written))
    except AddressValueError:
        return None


def _targets(text: str) -> Iterator[tuple[int, str, bool]]:
    """Where, what and whether an image: the targets of Markdown's links and of HTML's attributes."""
    for match in _TARGET.finditer(text):
        group = 1 if match[1] else 2
        opening = text.rfind("[", max(0, match.start() - _LONGEST), match.start())
        yield match.start(group), match[group], group == 1 and text[opening - 1 : opening] == "!"
    for match in _ATTRIBUTE.finditer(text):
        group = 2 if match[1] else 4
        before = text[max(0, match.start() - _LONGEST) : match.start()]
        if match[3] or before.rfind("<") > before.rfind(">"):
            yield match.start(group), match[group], (match[1] or match[3]).lower() in _IMAGES


def _rest(text: str, start: int) -> str:
    """What is written from there on, without the punctuation that ends it."""
    match = _REST.match(text, start)
    return match[0].rstrip(_CLOSING) if match else ""


def _link(at: int, written: str, scheme: str, image: bool = False) -> Link:
    name = scheme.removesuffix(":").lower() or None
    rest = written[len(scheme) :]
    if name == "mailto":
        host = None if "?" in rest else host_name(rest.partition("@")[2])
    else:
        host = None if name in _WITHOUT_HOST else _authority(rest)
    return Link(written, at, name, host, image)


def _authority(rest: str) -> str | None:
    """The host that a link leads to; None where programs would not agree."""
    slashes = len(rest) - len(rest.lstrip("/\\"))
    authority = re.split(r"[/\\?#]", rest[slashes:], maxsplit=1)[0]
    ended_by = rest[slashes + len(authority) :][:1]
    if "\\" in rest[:slashes] or ended_by == "\\" or authority.count("@") > 1 or slashes == 1:
        return None
    host = authority.rpartition("@")[2]
    name, colon, port = host.rpartition(":")
    if colon and (port.isdecimal() or not port):
        host = name
    return host_name(host) if host else None


def _is_bare_link(text: str, match: re.Match[str]) -> bool:
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 2]
    with_path = before != "/" and bool(_AFTER.match(after))
    if after.startswith("@") or (before == "@" and not with_path):
        return False  # an address; its domain is looked at by itself
    labels = re.split(_DOT, match[0].lower().rstrip("-_"))
    if labels[-1].isdecimal():
        return with_path and len(labels) == 4
    if with_path or labels[0] == "www":
        return True
    return _ends_a_host(labels[-1]) and not (len(labels) == 2 and labels[-1] in FILE_ENDINGS)


@lru_cache(maxsize=4096)
def _ends_a_host(ending: str) -> bool:
    if ending in SPECIAL_ENDINGS:
        return True
    name = host_name(ending)
    return name is not None and _suffixes().publicsuffix(f"x.{name}") is not None


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList  # read when it is first needed, which takes a moment

    return PublicSuffixList(accept_unknown=False, only_icann=True)
