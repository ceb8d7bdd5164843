"""On which of the two stores a story is told: on both, unless its file says otherwise."""

from __future__ import annotations

import pytest

#: For many cases that differ in their documents and numbers alone; other stories of theirs are told on both.
ON_ONE_STORE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
