"""Where a WebSocket comes in: who it is, and its life from here on."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from examples.bookstore.auth import Identity, bearer, identify
from examples.bookstore.errors import Unauthenticated
from examples.bookstore.store import Bookstore
from examples.bookstore.ws.connections import Connection
from examples.bookstore.ws.frames import ResponseModel
from examples.bookstore.ws.router import PackageRouter

SUBPROTOCOL = "bearer"

router = APIRouter()


@router.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    """One client, until it leaves. A token that is not one of ours is refused with 401."""
    bookstore: Bookstore = websocket.app.state.bookstore
    offered = websocket.scope.get("subprotocols", [])
    try:
        identity = identify(_token(websocket, offered), bookstore.settings.jwt_secret)
    except Unauthenticated as error:
        await websocket.send_denial_response(JSONResponse({"msg": str(error)}, status_code=401))
        return
    # The server must choose one of the subprotocols that were offered, and the token is none.
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    packages: PackageRouter = websocket.app.state.packages

    async def answer(frame: str | bytes, identity: Identity) -> ResponseModel:
        return await packages.answer(frame, identity, bookstore)

    settings = bookstore.settings
    connection = Connection(
        websocket,
        identity,
        queue_frames=settings.queue_frames,
        send_seconds=settings.send_seconds,
    )
    await bookstore.connections.serve(connection, answer)


def _token(websocket: WebSocket, offered: list[str]) -> str | None:
    """
    From the header Authorization, or from the subprotocols "bearer", TOKEN: a browser sets no header.

    Not from the address, which every log on the way keeps.
    """
    if len(offered) == 2 and offered[0] == SUBPROTOCOL:
        return offered[1]
    return bearer(websocket.headers.get("authorization"))
