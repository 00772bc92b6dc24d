"""Requests and their handlers."""

from outbox_relay.cqrs.requests.map import RequestMap
from outbox_relay.cqrs.requests.request import Request
from outbox_relay.cqrs.requests.request_handler import RequestHandler, StreamingRequestHandler

__all__ = ["Request", "RequestHandler", "RequestMap", "StreamingRequestHandler"]
