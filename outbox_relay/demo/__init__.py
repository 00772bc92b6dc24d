"""
The demonstration: a shop, a relay, a broker that goes away, a ``kill -9``, and an account.

Needs no service. The shop and the relay are processes of their own over one SQLite file, the broker
is an embedded one that speaks Kafka's protocol, and a real consumer counts what arrived.

Imports nothing: its parts are programs, and `python -m` warns of one that its package has imported already.
"""
