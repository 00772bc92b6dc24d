"""Frames: `{pkg_id, req_id, data}` from the client, `{pkg_id, req_id, status_code, data, meta}` to it."""

from __future__ import annotations

from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field, JsonValue, ValidationError, field_validator

from examples.bookstore.errors import describe
from examples.bookstore.paging import MetadataModel
from examples.bookstore.ws.constants import NO_REQUEST, PkgID, RSPCode


class BadFrame(ValueError):
    """The frame cannot be read; the text says what is wrong with it."""


class RequestModel(BaseModel):
    """What a client asks. It chooses `req_id`, and finds the answer by it."""

    pkg_id: int
    req_id: UUID
    data: dict[str, Any] = Field(default_factory=dict)

    @field_validator("req_id")
    @classmethod
    def _not_that_of_broadcasts(cls, value: UUID) -> UUID:
        if value == NO_REQUEST:
            raise ValueError("all zeros is for frames that answer no request")
        return value


class ResponseModel(BaseModel):
    """The answer to a request, or a broadcast. What went wrong is in `data.msg`."""

    pkg_id: int
    req_id: UUID
    status_code: RSPCode
    data: Any
    meta: MetadataModel | None = None

    @classmethod
    def success(
        cls, pkg_id: int, req_id: UUID, data: Any, meta: MetadataModel | None = None
    ) -> Self:
        """It is done."""
        return cls(pkg_id=pkg_id, req_id=req_id, status_code=RSPCode.OK, data=data, meta=meta)

    @classmethod
    def err_msg(
        cls, pkg_id: int, req_id: UUID, msg: str, status_code: RSPCode = RSPCode.ERROR
    ) -> Self:
        """It is not done, and nothing has changed."""
        return cls(pkg_id=pkg_id, req_id=req_id, status_code=status_code, data={"msg": msg})

    @classmethod
    def broadcast(cls, pkg_id: PkgID, data: dict[str, JsonValue]) -> Self:
        """News for everybody: it answers no request."""
        return cls.success(pkg_id, NO_REQUEST, data)


def read_frame(frame: str | bytes, *, max_bytes: int) -> RequestModel:
    """The request in *frame*. Raises BadFrame."""
    raw = frame.encode() if isinstance(frame, str) else frame
    if len(raw) > max_bytes:
        raise BadFrame(f"the frame has {len(raw)} bytes; at most {max_bytes} are read")
    try:
        return RequestModel.model_validate_json(raw)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            raise BadFrame(f"the frame is not JSON: {describe(error)}") from None
        raise BadFrame(
            f"the frame is not a request {{pkg_id, req_id, data}}: {describe(error)}"
        ) from None
