"""What gradio would do for any stranger and this Space does not: fetch what an address names, and read bodies of any length."""

import gradio as gr
from gradio import processing_utils

from text import say
from uploads import MOST_ZIP

MOST_UPLOAD = 3 * MOST_ZIP  # bytes of all files that are sent at once
MOST_MESSAGE = 30_000_000  # of a message of MCP, which may hold a picture in base64
MOST_BODY = 1_000_000  # of any other request: what boxes hold, without files


class Guard:
    """ASGI middleware that answers for the app where a request asks too much."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        """Refuse the request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if "/file" in scope["path"] and "://" in scope["path"]:
            await _refuse(send, 403, say("inputs.address"))
            return
        most = _most(scope["path"])
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await _refuse(send, 413, _too_long(most))
            return
        read, started, refused = 0, False, False

        async def counted():
            nonlocal read, refused
            message = await receive()
            read += len(message.get("body", b""))
            if read <= most:
                return message
            if not (started or refused):
                refused = True
                await _refuse(send, 413, _too_long(most))
            return {"type": "http.disconnect"}

        async def careful(message):
            nonlocal started
            if refused:
                return
            if message["type"] == "http.response.start":
                started = True
                # A browser then takes a file for what its name says, not for the page that it may hold.
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            await self.app(scope, counted, careful)
        except Exception:
            if not refused:  # otherwise it says that the visitor has gone
                raise


GUARD = (Guard, (), {})  # as starlette wants it


def fetch_nothing() -> None:
    """From now on gradio fetches no file that a program names by its address, to whichever box it gives it."""
    processing_utils.async_ssrf_protected_download = _refused


async def _refused(address, cache_dir):
    raise gr.Error(say("inputs.address"), print_exception=False)


def _most(path):
    if path.rstrip("/").endswith("/upload"):
        return MOST_UPLOAD
    return MOST_MESSAGE if "/mcp" in path else MOST_BODY


def _too_long(most):
    return say("inputs.request_too_large", limit=f"{most // 1_000_000} MB")


async def _refuse(send, status, words):
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words.encode()})
