"""The values of a FITS image that is compressed tile by tile (fpack), unpacked in another process; and how such a process is asked.

The C code of astropy (8.0.2) that unpacks them writes beyond its memory if a header is wrong: the process that does it may die, or go on with
anything in its memory. Hence none reads a file after one that is damaged: it is a fork of another one, which has only imported what it takes,
and forks the next (where there is no fork, it goes on). This file is their program, too, and needs nothing of ours then.
"""

import atexit
import gzip
import io
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

SECONDS, MEMORY = 120.0, 2**33  # that a file may take, and bytes that it may need, where the system limits them
REQUEST, ANSWER = struct.Struct("<Qd"), struct.Struct("<?Q")  # bytes, seconds; success, bytes
IMAGE = struct.Struct("<Q?")  # place, scaled
BUNCH = 100  # files that a process reads
GO_ON = 3  # exit status of one after which another can take its place
# As many axes and columns as the standard allows have three digits; astropy makes a list of as many as a header claims, before it reads on.
# Each name by itself: an expression that begins with a choice is looked for twenty times as slowly.
TOO_MANY = {name: re.compile(name.encode() + rb" *= *\+?0*([1-9][0-9]{3,})") for name in ("ZNAXIS", "NAXIS", "TFIELDS")}
# Of a text astropy makes a string of as many copies as the other numbers say, when it computes the size of the data.
TEXT = {name: re.compile(name.encode() + rb"[0-9]* *= *'") for name in ("NAXIS", "GCOUNT", "PCOUNT")}
PIECE = 2**24  # bytes of a file that are looked through at once
FAILED = "its compressed pixels cannot be unpacked"


class Helper:
    """The process that reads files of some kind for this process.

    Args:
        program: a file that calls `run`.
        failed: the beginning of what is said of a file that it cannot read.
    """

    def __init__(self, program: Path, failed: str) -> None:
        self._program, self._failed = program, failed
        self._turn = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._inherited: list[subprocess.Popen | None] = []  # of processes that this one is a fork of
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def ask(self, *request: bytes) -> bytes:
        """What the program answers.

        Args:
            request: its parts, which it gets as one.

        Raises:
            ValueError: it failed, or died.
        """
        with self._turn:
            process = self._started()
            try:
                assert process.stdin
                assert process.stdout
                process.stdin.write(REQUEST.pack(sum(map(len, request)), SECONDS))
                for part in request:
                    process.stdin.write(part)
                process.stdin.flush()
                good, length = ANSWER.unpack(_exactly(process.stdout, ANSWER.size))
                answer = _exactly(process.stdout, length)
            except (OSError, EOFError) as error:
                self.stop()
                raise ValueError(self._failed) from error
        if not good:
            raise ValueError(f"{self._failed}: {answer.decode(errors='replace')}")
        return answer

    def _started(self) -> subprocess.Popen:
        if self._process is None:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            command = [sys.executable, "-P", str(self._program.resolve())]
            # In a session of its own: an interrupt of the terminal is for this process, whose end is the end of its requests.
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        return self._process

    def stop(self) -> None:
        """End the process, if it is there; the next file starts another."""
        if process := self._process:
            self._process = None
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # what could not be written to it any more
                    pipe.close()  # type: ignore[union-attr]  # both are pipes
            process.wait()

    def forget(self) -> None:
        """In a fork of this process: leave the process to it, whose answers are for it, and the lock that it may hold."""
        self._inherited.append(self._process)  # else Python would wait for its end
        self._process, self._turn = None, threading.Lock()


_unpacker = Helper(Path(__file__), FAILED)


def check_counts(file: bytes | Path) -> None:
    """Refuse a FITS file whose headers claim more axes or columns than there may be, or count in texts: astropy would fill the memory, or take minutes.

    Args:
        file: the whole of it, or its path; it may be gzipped.

    Raises:
        ValueError: names the header.
        OSError: it cannot be read.
    """
    with open(file, "rb") if isinstance(file, Path) else io.BytesIO(file) as opened:
        is_gzipped = opened.read(2) == b"\x1f\x8b"
        opened.seek(0)
        with gzip.open(opened) if is_gzipped else opened as content:
            before = b""
            while piece := content.read(PIECE):
                piece = before + piece
                for name, claim in TOO_MANY.items():
                    if found := claim.search(piece):
                        count = found[1][:20].decode()
                        raise ValueError(f"its header {name} is {count}, and 999 is the most that there may be")
                for name, claim in TEXT.items():
                    if claim.search(piece):
                        raise ValueError(f"its header {name} is a text, where a number is meant")
                before = piece[-80:]


def image_values(hdu: Any, place: int, content: bytes | Path, scaled: bool = True) -> np.ndarray:
    """The values of an image in a FITS file, as `hdu.data` of astropy.

    Args:
        hdu: an HDU of astropy, of `content`.
        place: its number in the file.
        content: the whole file, or its path; it may be gzipped.
        scaled: BSCALE, BZERO and BLANK are applied, as where a file is opened with uint=False: of unsigned numbers astropy ignores BLANK. Of a
            compressed image only; others come as `hdu` was opened.

    Raises:
        ValueError: it is compressed, and cannot be unpacked.
        OSError: it cannot be read.
        Exception: as astropy, if it is not compressed.
    """
    if not isinstance(hdu, _fits().CompImageHDU):
        return hdu.data
    answer = _unpacker.ask(IMAGE.pack(place, scaled), content if isinstance(content, bytes) else content.read_bytes())
    values = np.load(io.BytesIO(answer), allow_pickle=False)
    if values.shape != hdu.shape:
        raise ValueError(FAILED)
    return values


def _fits() -> Any:
    try:
        from astropy.io import fits
    except ImportError as error:  # where this file was loaded with a model, astropy may be missing
        raise ImportError("needs astropy; pip install astropy") from error
    return fits


def _exactly(file: IO[bytes], length: int) -> bytes:
    """So many bytes of a file.

    Raises:
        EOFError: there are fewer.
    """
    content = file.read(length)
    if len(content) < length:
        raise EOFError
    return content


# The program


def run(work: Callable[[bytes], bytes]) -> None:
    """Answer the requests of the process that has started this one, each by `work`, which may raise."""
    warnings.simplefilter("ignore")  # of oddities in headers
    _limit_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer, work)


def serve(requests: IO[bytes], answers: IO[bytes], work: Callable[[bytes], bytes]) -> None:
    """Answer until there are no requests any more, or a process that works dies: it may have written half of an answer."""
    if not hasattr(os, "fork"):
        while _answered(requests, answers, work) is not None:
            pass
        return
    while True:
        if not (worker := os.fork()):
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the C library says when it dies
                os._exit(GO_ON if _bunch(requests, answers, work) else 1)
            finally:  # whatever happens, the parent goes on from here, not this process
                os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) != GO_ON:
            return


def _bunch(requests: IO[bytes], answers: IO[bytes], work: Callable[[bytes], bytes]) -> bool:
    """Answer some requests, up to the first file that is damaged; whether there may be more."""
    for _ in range(BUNCH):
        good = _answered(requests, answers, work)
        if not good:
            return good is not None
    return True


def _answered(requests: IO[bytes], answers: IO[bytes], work: Callable[[bytes], bytes]) -> bool | None:
    """Answer a request; whether the work succeeded. None: there was no request."""
    try:
        length, seconds = REQUEST.unpack(_exactly(requests, REQUEST.size))
        request = _exactly(requests, length)
    except EOFError:
        return None
    _end_after(seconds)
    try:
        answer, good = work(request), True
    except Exception as error:
        answer, good = (" ".join(str(error).split()) or type(error).__name__)[:300].encode(), False
    _end_after(0)
    answers.write(ANSWER.pack(good, len(answer)))
    answers.write(answer)
    answers.flush()
    return good


def _unpacked(request: bytes) -> bytes:
    (place, scaled), content = IMAGE.unpack(request[: IMAGE.size]), request[IMAGE.size :]
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    with _fits().open(io.BytesIO(content), memmap=False, uint=False, do_not_scale_image_data=not scaled) as hdus:
        file = io.BytesIO()
        np.save(file, hdus[place].data, allow_pickle=False)
    return file.getvalue()


def _end_after(seconds: float) -> None:
    """End this process then, where the system has alarms; 0: never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory() -> None:
    with suppress(ImportError, ValueError, OSError):  # not on Windows; a lower limit is there; not on macOS
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    _fits()  # before the forks, which then have it
    run(_unpacked)
