"""Requests as the hosts of a public service would like them: few at a time, patient, and with a name to write to."""

import logging
import random
import re
import threading
import time
from collections.abc import Callable
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.error import HTTPError, URLError

from hf_galaxy.cutouts.answers import NoPicture, Unreachable, WrongAnswer
from hf_galaxy.download import SameServer, download
from hf_galaxy.errors import BadInput

logger = logging.getLogger(__name__)
SECONDS = 60  # for one answer
MAX_BYTES = 2**28  # of an answer
BUSY = (429, 503)  # all requests wait, not only the one that got this
PASSING = (408, 500, 502, 504, *BUSY)  # may be well the next time
CLOSED = (401, 403)  # nobody, or not we, may ask
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries, which double
SAID_WAIT = 10.0  # seconds
LONGEST_ASKED = 600.0  # seconds; who asks for more is not waited for

Check = Callable[[bytes], None]


class Stopped(Exception):
    """The work has been given up in another thread."""


class Pace:
    """The turns of requests, which all threads share: so many per second, and none while a server asks to wait.

    Args:
        per_second: of the turns.
        clock, sleep: as in the module time.
    """

    def __init__(self, per_second: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.interval, self.clock, self.sleep = 1 / per_second, clock, sleep
        self._next, self._lock = clock(), threading.Lock()

    def wait(self) -> None:
        """Wait for a turn."""
        with self._lock:
            now = self.clock()
            turn = max(now, self._next)
            self._next = turn + self.interval
        if turn > now:
            self.sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Give no turn before so many seconds have passed."""
        with self._lock:
            self._next = max(self._next, self.clock() + seconds)


class Client:
    """Asks one server, for several threads.

    Args:
        per_second: the most requests in a second, of all threads together.
        retries: further tries of a request that failed in a way that may pass.
        contact: an address or a page, which the server sees.
        clock, sleep: as in the module time.

    Raises:
        BadInput: a value is out of range.
    """

    def __init__(
        self,
        per_second: float = 5,
        retries: int = 4,
        contact: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        if not 0 < per_second <= 1000 or not 0 <= retries <= 100:
            raise BadInput("--per-second must be above 0 and at most 1000, --retries from 0 to 100")
        if not re.fullmatch(r"[\x20-\x7e]{0,200}", contact):
            raise BadInput("--contact must be an e-mail address or the address of a page, in ASCII")
        self.retries = retries
        self.agent = f"hf_galaxy ({contact})" if contact else "hf_galaxy"
        self._stopped = threading.Event()
        self._sleep = sleep or self._sleep_or_stop
        self.pace = Pace(per_second, clock, self._sleep)

    def stop(self) -> None:
        """Let no thread wait or ask any more."""
        self._stopped.set()

    def ask(self, url: str, check: Check) -> bytes:
        """The content of a URL.

        Args:
            check: raises `WrongAnswer` if the content is not what was asked for, `NoPicture` if there is none.

        Raises:
            NoPicture: there is none, or not after all tries; Unreachable if that is because of the server.
            Stopped: `stop` was called.
        """
        for attempt in range(self.retries + 1):
            self.pace.wait()
            if self._stopped.is_set():
                raise Stopped
            asked_wait, busy = 0.0, False
            try:
                content = download(url, SECONDS, MAX_BYTES, SameServer(), agent=self.agent)
                check(content)
                return content
            except WrongAnswer as error:
                failure: NoPicture = error
            except NoPicture:
                raise
            except HTTPError as error:
                error.close()
                failure = _of_status(error.code)
                if error.code not in PASSING:
                    raise failure from error
                busy, asked_wait = error.code in BUSY, retry_after(error.headers)
            except (OSError, HTTPException) as error:  # URLError and TimeoutError are OSErrors
                failure = _of_connection(error)
            except ValueError as error:
                raise NoPicture(f"the answer {error}") from error
            if asked_wait > LONGEST_ASKED:
                raise Unreachable(f"the server is busy, and asks to wait {asked_wait:,.0f} s")
            if attempt < self.retries:
                jitter = random.uniform(0.5, 1.5)  # noqa: S311 (no secret)
                wait = max(asked_wait, min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * jitter)
                if wait >= SAID_WAIT:
                    logger.info("%s; waiting for %.0f s", failure, wait)
                if busy or asked_wait:
                    self.pace.pause(wait)
                else:
                    self._sleep(wait)
        raise failure

    def _sleep_or_stop(self, seconds: float) -> None:
        self._stopped.wait(seconds)


def retry_after(headers: Message) -> float:
    """The seconds that a server asks to wait; 0 if it does not.

    RFC 9110, 10.2.3: a number of seconds, or a date.
    """
    text = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d{1,9}", text, re.ASCII):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _of_status(code: int) -> NoPicture:
    if code in PASSING or code in CLOSED:
        return Unreachable(f"the server answers with status {code}")
    if 300 <= code < 400:
        return NoPicture(f"the server answers with status {code}, and names another server")
    return NoPicture(f"the server answers with status {code}")


def _of_connection(error: Exception) -> Unreachable:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return Unreachable(f"the server did not answer within {SECONDS} s")
    return Unreachable(f"the server cannot be reached ({' '.join(str(reason).split()) or type(reason).__name__})")
