"""Files of pictures in folders and zips, by name."""

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from hf_galaxy.data.pictures import MAX_BYTES, reading
from hf_galaxy.errors import BadInput

# Of files that hold pictures, in small letters.
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fits.fz",
)  # fmt: skip

# Of further files, which hold fluxes.
FLUX_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".safetensors", ".npy.gz")
FILES = "\n"  # between the names of several files of one galaxy, one for each band


def stem_of(path: str) -> str:
    """The name of a file without the suffix of a picture; "J0004+0209.0" has none. Of several files, what their names share."""
    if FILES in path:
        stems = [stem_of(each) for each in path.split(FILES)]
        words = [re.split(r"([_\-. ])", stem) for stem in stems]
        shared = "".join(each[0] for each in zip(*words, strict=False) if len(set(each)) == 1).strip("_-. ")
        return shared or stems[0]
    name = PurePosixPath(path.replace("\\", "/")).name
    suffixes = (suffix for suffix in (*SUFFIXES, *FLUX_SUFFIXES) if name.lower().endswith(suffix))
    return name[: len(name) - len(max(suffixes, key=len, default=""))] or name


class PictureFiles(Protocol):
    """Encoded pictures by name, with a text that says where they are; can be pickled."""

    def __contains__(self, name: str) -> bool: ...
    def read(self, name: str) -> bytes: ...
    def stamps(self, names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
        """What changes when a picture changes."""

    def place_of(self, name: str) -> str:
        """Where a picture is, for messages."""


class Pictures:
    """Files in one or several folders and zip files, read by name; the first source that has a name is used. An absolute path is
    read if it is in one of the folders.

    If one folder at the top of a zip holds all its files, names may omit it.

    Raises:
        BadInput: a source is neither a folder nor a zip.
    """

    def __init__(self, sources: list[Path]) -> None:
        self.sources = list(sources)
        # Asked once: each question is a trip to the server of a shared file system, for each of millions of names.
        self._folders = {source for source in self.sources if source.is_dir()}
        self._process = os.getpid()
        self._archives: dict[Path, tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]] = {}
        for source in self.sources:
            try:
                if source not in self._folders:
                    self._archive(source)
            except (OSError, zipfile.BadZipFile) as error:
                problem = "is neither a folder nor a zip file" if source.exists() else "no such folder or zip file"
                raise BadInput(f"--images {source}: {problem}") from error

    def __str__(self) -> str:
        # The root of the disk stands for absolute paths; nobody looks for pictures there.
        named = [str(source) for source in self.sources if source != Path(source.anchor)]
        return ", ".join(named or map(str, self.sources))

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_archives": {}}

    def __contains__(self, name: str) -> bool:
        return self._source(name) is not None

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            BadInput: it is missing, damaged, or a member of a zip with more than 1 GiB.
        """
        source = self._source(name)
        with reading(source / name if source else name):
            if not source:
                raise BadInput(f"is not in {self}")
            if source in self._folders:
                return (source / name).read_bytes()
            archive, members = self._archive(source)
            member = members[str(PurePosixPath(name))]
            if member.file_size > MAX_BYTES:
                raise BadInput("is larger than 1 GiB")
            return archive.read(member)

    def place_of(self, name: str) -> str:
        """The folder or zip that has a file, for messages."""
        return str(Path(name).parent if Path(name).anchor else self._source(name) or self)

    def stamps(self, names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
        """Path, size and time of modification of the zips and of these files in folders, which change when a file changes."""

        def stamp(path: str) -> tuple[str, int, int]:
            status = os.stat(path)
            return path, status.st_size, status.st_mtime_ns

        yield from (stamp(os.path.realpath(source)) for source in self.sources if source not in self._folders)
        folders = {source: os.path.realpath(source) for source in self._folders}
        for name in names:
            if (source := self._source(name)) and source in folders:
                yield stamp(os.path.join(folders[source], name))

    def _source(self, name: str) -> Path | None:
        """The first source that has the file, or None."""
        if ".." in name and ".." in Path(name).parts:  # would leave the folder
            return None
        if (os.sep == "\\" or name.startswith("/")) and Path(name).anchor:
            folders = [source for source in self.sources if source in self._folders]
            places = [
                (source, place) for source in folders for place in (os.path.abspath(source), os.path.realpath(source))
            ]
            within = (source for source, place in places if Path(name).is_relative_to(place))
            return next((source for source in within if os.path.isfile(name)), None)
        for source in self.sources:
            if source in self._folders:
                exists = os.path.isfile(
                    os.path.join(source, name)
                )  # Path.is_file raises where a name is too long for a file
            else:
                exists = str(PurePosixPath(name)) in self._archive(source)[1]
            if exists:
                return source
        return None

    def _archive(self, source: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
        """(zip file, name -> member), opened once in each process: forked processes would share the position in the file."""
        if self._process != os.getpid():
            self._process, self._archives = os.getpid(), {}
        if source not in self._archives:
            archive = zipfile.ZipFile(source)
            # macOS adds metadata of each file in a second folder at the top.
            files = [i for i in archive.infolist() if not i.is_dir() and not i.filename.startswith("__MACOSX/")]
            members = {str(PurePosixPath(i.filename)): i for i in files}
            tops = {name.partition("/")[0] if "/" in name else None for name in members}
            if len(tops) == 1 and None not in tops:
                members = {name.partition("/")[2]: i for name, i in members.items()} | members
            self._archives[source] = archive, members
        return self._archives[source]


class FilesOfBands:
    """`PictureFiles` where a name may be those of several files of one galaxy, one for each band, with `FILES` between them."""

    def __init__(self, pictures: PictureFiles) -> None:
        self.pictures = pictures

    def __str__(self) -> str:
        return str(self.pictures)

    def __contains__(self, name: str) -> bool:
        return all(each in self.pictures for each in name.split(FILES))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return self.pictures.read(name)

    def place_of(self, name: str) -> str:
        return self.pictures.place_of(name.split(FILES)[0])

    def stamps(self, names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
        return self.pictures.stamps(each for name in names for each in name.split(FILES))
