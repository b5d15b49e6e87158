"""Protection against requests that gradio accepts by default: fetching files from addresses, and bodies of any length."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NoReturn

import gradio as gr
from gradio import processing_utils

from text import sentence
from uploads import MAX_ZIP

MAX_UPLOAD = 3 * MAX_ZIP  # bytes of all files in one request
MAX_MESSAGE = 30_000_000  # of an MCP message, which may hold a picture in base64
MAX_BODY = 1_000_000  # of any other request, without files

# Of ASGI.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware that refuses requests that are too large, or name an address."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Refuse the request, or forward it to the app."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if "/file" in scope["path"] and "://" in scope["path"]:
            await _refuse(send, 403, sentence("inputs.address"))
            return
        limit = _limit(scope["path"])
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            await _refuse(send, 413, _too_long(limit))
            return
        read, started, refused = 0, False, False

        async def counted() -> Message:
            nonlocal read, refused
            message = await receive()
            read += len(message.get("body", b""))
            if read <= limit:
                return message
            if not (started or refused):
                refused = True
                await _refuse(send, 413, _too_long(limit))
            return {"type": "http.disconnect"}

        async def guarded(message: Message) -> None:
            nonlocal started
            if refused:
                return
            if message["type"] == "http.response.start":
                started = True
                # So that a browser trusts the content type, and does not open a file as the page that it may hold.
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            await self.app(scope, counted, guarded)
        except Exception:
            if not refused:  # otherwise it reports that the visitor has left
                raise


GUARD = (Guard, (), {})  # in the form that starlette expects


def fetch_nothing() -> None:
    """Make gradio refuse to fetch a file whose address a program gives, in any component."""
    processing_utils.async_ssrf_protected_download = _refused


async def _refused(address: str, cache_dir: str) -> NoReturn:
    raise gr.Error(sentence("inputs.address"), print_exception=False)


def _limit(path: str) -> int:
    if path.rstrip("/").endswith("/upload"):
        return MAX_UPLOAD
    return MAX_MESSAGE if "/mcp" in path else MAX_BODY


def _too_long(limit: int) -> str:
    return sentence("inputs.request_too_large", limit=f"{limit // 1_000_000} MB")


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
