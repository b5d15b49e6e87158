"""Downloads over HTTP, limited in time and size."""

import time
from http.client import HTTPMessage
from typing import IO
from urllib.parse import urlsplit
from urllib.request import BaseHandler, HTTPRedirectHandler, Request, build_opener


class SameServer(HTTPRedirectHandler):
    """Follows only redirects to the scheme and host of the request; another redirect becomes an HTTPError."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, timeout: float, max_bytes: int, *handlers: BaseHandler, agent: str = "hf_galaxy") -> bytes:
    """The content of a URL.

    Args:
        timeout: in seconds, for all of it.
        handlers: of urllib, such as `SameServer`.
        agent: who asks; some servers reject requests without a name.

    Raises:
        TimeoutError: it takes longer.
        ValueError: it has more bytes, or the URL is invalid.
        OSError: the server cannot be reached; an HTTPError if it answers with an error.
        http.client.HTTPException: the answer is not HTTP.
    """
    parts, size, end = [], 0, time.monotonic() + timeout
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(
            "the address must begin with http:// or https://"
        )  # urllib would read files of this machine, too
    request = Request(url, headers={"User-Agent": agent})  # noqa: S310 (checked)
    with build_opener(*handlers).open(request, timeout=timeout) as response:
        while part := response.read1(2**16):
            parts.append(part)
            size += len(part)
            if time.monotonic() > end:
                raise TimeoutError(f"takes longer than {timeout:g} s")
            if size > max_bytes:
                raise ValueError(f"is larger than {max_bytes:,} bytes")
    return b"".join(parts)
