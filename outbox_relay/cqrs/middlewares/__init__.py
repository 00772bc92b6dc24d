"""What stands around every handler of a mediator."""

from outbox_relay.cqrs.middlewares.base import Handle, Middleware, MiddlewareChain
from outbox_relay.cqrs.middlewares.logging import LoggingMiddleware

__all__ = ["Handle", "LoggingMiddleware", "Middleware", "MiddlewareChain"]
