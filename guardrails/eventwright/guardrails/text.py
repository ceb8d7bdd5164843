"""Hostile text (draft so that the tree imports; its owner overwrites this file)."""

from __future__ import annotations

from collections.abc import Sequence


def clean(text: str) -> str:
    return text


def foreign_links(text: str, allowed: Sequence[str]) -> list[str]:
    return []
