"""The support workflow asks a customer for something, and waits: for the reply, or for the time."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from email.message import Message
from typing import Any

import pytest
from tests.journeys.support_world import ANN, CLEAR, REFUND, Outside, ticket

from eventwright.app.simulate import Simulation, simulate, simulator
from eventwright.graphs.support import FRONT_DESK, WHO_DECIDES, support
from eventwright.queue.intake import EventRefused
from eventwright.runs.event import Event, new_id
from eventwright.runs.records import JournalKind, ReviewKind
from eventwright.runs.states import Outcome, RunState
from eventwright.tools.payments import Refund

DAYS = timedelta(days=1)
