"""Diagrams of the maps, in the language of Mermaid: what handles what."""

from __future__ import annotations

from outbox_relay.cqrs.events.event import leaves_the_process_class
from outbox_relay.cqrs.events.map import EventMap
from outbox_relay.cqrs.mediator import RequestMediator
from outbox_relay.cqrs.requests.map import RequestMap


def mermaid(
    source: RequestMediator | RequestMap | None = None, event_map: EventMap | None = None
) -> str:
    """
    A flowchart of a mediator's maps, or of a map for requests and one for events.

    Requests point to their handler, events to each of theirs; dotted arrows are followed after the
    commit. Events that leave the process point to the outbox as well.
    """
    requests = source
    if isinstance(source, RequestMediator):
        requests, event_map = source.request_map, source.event_map
    lines = ["flowchart LR"]
    if isinstance(requests, RequestMap):
        for request, handler in requests.items():
            lines.append(f"    {_node(request)} --> {_node(handler)}")
    outgoing = []
    for event, bindings in event_map.items() if event_map is not None else ():
        for handler, after_commit in bindings:
            arrow = "-. after commit .->" if after_commit else "-->"
            lines.append(f"    {_node(event, event=True)} {arrow} {_node(handler)}")
        if leaves_the_process_class(event):
            outgoing.append(f"    {_node(event, event=True)} --> outbox[(outbox)]")
    return "\n".join([*lines, *outgoing]) + "\n"


def _node(kind: type, *, event: bool = False) -> str:
    # The name alone may stand for two classes; Mermaid takes no dots in an id.
    identity = f"{kind.__module__}_{kind.__qualname__}".replace(".", "_")
    identity = "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in identity)
    name = kind.__name__.replace('"', "'")
    return f'{identity}(["{name}"])' if event else f'{identity}["{name}"]'
