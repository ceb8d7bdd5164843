"""The event that a run is about, for nodes that read in it what is too large for the graph's state."""

from __future__ import annotations

from eventwright.graphs.twin import NoSegment, current_segment
from eventwright.runs.event import Event


def starting_event() -> Event:
    """The event that started the run. Works inside a running node.

    What is in it is as untrusted as the graph's input: a node that reads it and the input writes untrusted state.

    Raises:
        NoSegment: no run goes on here.
    """
    segment = current_segment.get()
    if segment is None:
        raise NoSegment("starting_event() tells of the run whose node calls it, and no node is running here")
    return segment.run.event
