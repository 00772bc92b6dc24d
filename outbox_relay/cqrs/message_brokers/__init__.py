"""Message brokers as the documents know them: they send one message at a time."""

from outbox_relay.cqrs.message_brokers.protocol import Message, MessageBroker

__all__ = ["Message", "MessageBroker"]
