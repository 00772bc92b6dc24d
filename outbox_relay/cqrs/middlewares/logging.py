"""A line in the log for each request."""

from __future__ import annotations

import logging
from typing import Any

from outbox_relay.cqrs.middlewares.base import Handle

logger = logging.getLogger("outbox_relay.cqrs")


class LoggingMiddleware:
    """Says at level DEBUG which request came and how it ended. Never what is in it."""

    async def __call__(self, request: Any, handle: Handle) -> Any:
        name = type(request).__name__
        logger.debug("handling %s", name)
        try:
            response = await handle(request)
        except Exception as error:
            logger.debug("%s failed with %s", name, type(error).__name__)
            raise
        logger.debug("handled %s", name)
        return response
