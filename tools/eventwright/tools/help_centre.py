"""The help centre: articles for customers. Embedded, a file of the package; it reads, and changes nothing."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections import Counter
from importlib.resources import files
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from eventwright.tools.contract import Permanent, tool

#: So many articles are found at most.
MOST_FOUND = 3
#: An article is found from so many points on.
ENOUGH_POINTS = 8.0
#: How much more a word of its title, or of what it is about, counts than one of its text.
IN_HEADING = 3.0
#: Words that say nothing about what somebody wants.
_EMPTY = """\
a an and are be been but by can could did do does for from had has have how i if in into is it its me my not of on
or so than that the their then there they this to was we were what which who why will with you your"""
EMPTY_WORDS = frozenset(_EMPTY.split())


class Article(BaseModel):
    """An article as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str
    about: str
    text: str

    @property
    def summary(self) -> str:
        """Its first sentence."""
        return re.split(r"(?<=[.!?])\s", self.text.strip(), maxsplit=1)[0]


class Found(BaseModel):
    """An article as a search finds it."""

    id: str
    title: str
    summary: str


class Page(BaseModel):
    """An article as a reader gets it."""

    id: str
    title: str
    text: str


@functools.cache
def packaged_articles() -> dict[str, Article]:
    """The articles that come with the package, by id."""
    source = files("eventwright.tools") / "data" / "help_centre.toml"
    articles = [Article.model_validate(entry) for entry in tomllib.loads(source.read_text("utf-8"))["article"]]
    return {article.id: article for article in articles}


@tool(trusted=True)
async def search(query: Annotated[str, Field(min_length=1, max_length=500)]) -> list[Found]:
    """Search the help centre for articles: their ids, titles and first sentences, the best first."""
    wanted = _words(query)
    points = {article.id: _points(article, wanted) for article in packaged_articles().values()}
    best = sorted((id_ for id_, found in points.items() if found >= ENOUGH_POINTS), key=lambda id_: -points[id_])
    articles = [packaged_articles()[id_] for id_ in best[:MOST_FOUND]]
    return [Found(id=article.id, title=article.title, summary=article.summary) for article in articles]


@tool(trusted=True)
async def read(article_id: Annotated[str, Field(max_length=60)]) -> Page:
    """Read one article of the help centre, by its id."""
    article = packaged_articles().get(article_id)
    if article is None:
        raise Permanent(f"the help centre has no article {article_id!r}; search for one first")
    return Page(id=article.id, title=article.title, text=article.text.strip())


def _points(article: Article, wanted: frozenset[str]) -> float:
    """How well an article fits. A word counts more the fewer articles have it, and where it says what it is about."""
    weights = _weights()
    heading, text = _words(article.title) | _words(article.about), _words(article.text)
    return sum(weights[word] * (IN_HEADING if word in heading else 1) for word in wanted & (heading | text))


@functools.cache
def _weights() -> dict[str, float]:
    """The weight of each word of the help centre."""
    articles = list(packaged_articles().values())
    having = Counter(word for one in articles for word in _words(one.title) | _words(one.about) | _words(one.text))
    return {word: math.log2(len(articles) / count) for word, count in having.items()}


@functools.lru_cache(maxsize=1024)
def _words(text: str) -> frozenset[str]:
    """The words of a text, without endings: a card and many cards are one word."""
    plain = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "").replace("'", "").replace("_", " ")
    plain = re.sub(r"\btop(?:ping|ped|s)?[ -]?ups?\b", "topup", plain)
    return frozenset(_stem(word) for word in re.findall(r"\w+", plain) if word not in EMPTY_WORDS)


def _stem(word: str) -> str:
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word
