"""How the offline model reads: the material of a question, its lines, its words."""

from __future__ import annotations

import re


def words_of(text: str) -> list[str]:
    """Lower-case words without apostrophes; the many spellings of "top up" are one word."""
    plain = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "").replace("'", "")
    plain = re.sub(r"\btop(?:ping|ped|s)?[ -]?(?:up|off)(s?)\b", r"topup\1", plain)
    return re.findall(r"\w+", plain)


def material_of(text: str) -> str:
    """The material of a question, without the two lines that mark it."""
    marked = re.fullmatch(r"<material (\w+)>\n(.*)\n</material \1>", text, re.DOTALL)
    return marked[2] if marked else text


def fields_of(material: str) -> dict[str, str]:
    """The lines `name: value` at the head of the material; `message` is all the rest from its line on."""
    fields: dict[str, str] = {}
    lines = material.splitlines()
    for number, line in enumerate(lines):
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if name == "message" and colon:
            fields[name] = "\n".join([value, *lines[number + 1 :]]).strip()
            break
        if colon:
            fields.setdefault(name, value.strip())
    return fields
