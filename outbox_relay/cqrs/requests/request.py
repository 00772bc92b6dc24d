"""Commands and queries: what is asked of the application."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """
    A command or a query. Immutable, and valid once it is made: pydantic has checked its fields.

    Handlers take requests of any class; `outbox_relay.cqrs.dataclass_models` has this one as a
    dataclass.
    """

    model_config = ConfigDict(frozen=True)
