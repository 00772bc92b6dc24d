"""What a handler answers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Response(BaseModel):
    """
    The answer to a request. Immutable.

    A handler may answer with anything else as well: a list of these, a value, None.
    """

    model_config = ConfigDict(frozen=True)
