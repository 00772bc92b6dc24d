"""
The demonstration: a shop, a relay, a broker that goes away, a ``kill -9``, and an account.

Needs no service. The shop and the relay are processes of their own over one SQLite file, the broker
is an embedded one that speaks Kafka's protocol, and a real consumer counts what arrived.
"""

from outbox_relay.demo.scenario import run_demo

__all__ = ["run_demo"]
