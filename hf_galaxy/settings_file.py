"""Files of settings: --config reads the options of a command from YAML or JSON, --print-config writes them as YAML."""

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
import yaml

from hf_galaxy.errors import BadInput
from hf_galaxy.plain_json import parsed

YES, NO = ("true", "yes", "on"), ("false", "no", "off")


def with_file(settings: Any, arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with the options of the file in their `--config` put before them; without that option as they are.

    An option on the command line replaces that of the file.

    Args:
        settings: a dataclass, or a union of them, one of which the first argument names.

    Raises:
        BadInput: the file cannot be read, or has an option that the command has not.
    """
    arguments, path = _without(list(arguments), "--config")
    if path is None:
        return arguments
    subcommand = []
    if not dataclasses.is_dataclass(settings):
        kinds = {kind.__name__.lower(): kind for kind in typing.get_args(settings)}
        subcommand, arguments = arguments[:1], arguments[1:]
        if not subcommand or subcommand[0] not in kinds:
            raise BadInput(f"--config {path}: put one of {', '.join(kinds)} first")
        settings = kinds[subcommand[0]]
    given = {_name(word.partition("=")[0]) for word in arguments if word.startswith("--")}
    given |= {name.removeprefix("no_") for name in given}
    has_first_word = bool(arguments) and not arguments[0].startswith("-")
    options = _options(settings)
    words: list[str] = []
    for key, value in read(Path(path)).items():
        option = options.get(_name(str(key)))
        if value is None:  # a run's record has all options, those that it does not use as null
            continue
        if option is None:
            near = difflib.get_close_matches(_name(str(key)), options, 1)
            meant = f"did you mean {near[0].replace('_', '-')}?" if near else "--help lists those of this command"
            raise BadInput(f"--config {path}: {key}: there is no such option; {meant}")
        if not (has_first_word if option.is_positional else option.names & given):
            option_words = option.words(path, str(key), value)
            words = [*option_words, *words] if option.is_positional else [*words, *option_words]
    return [*subcommand, *words, *arguments]


def read(path: Path) -> dict[str, Any]:
    """The options in a file: name -> value. Those of a run's record, run.json, are its settings.

    Raises:
        BadInput: it cannot be read, is not of this form, or names an option twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            content = parsed(text, lambda pairs: _once(path, pairs))
        else:
            content = yaml.load(text, _loader(path))  # noqa: S506 (a loader of texts alone)
    except OSError as error:
        raise BadInput(
            f"--config {path}: {error.strerror}; it is a YAML or JSON file of options (the configuration of a dataset is --dataset-config)"
        ) from error
    except BadInput:
        raise
    except RecursionError as error:
        raise BadInput(f"--config {path}: cannot be read (it is nested too deeply)") from error
    except (ValueError, TypeError, yaml.YAMLError) as error:  # TypeError: a mapping as the name of an option
        raise BadInput(f"--config {path}: cannot be read ({' '.join(str(error).split())})") from error
    if isinstance(content, dict) and isinstance(content.get("settings"), dict):
        content = content["settings"]
    if not isinstance(content, dict):
        raise BadInput(f"--config {path}: holds no options; write a line such as `learning-rate: 1e-3` for each")
    return content


def text_of(settings: Any) -> str:
    """The settings as a file for `--config`."""
    options = _options(type(settings))
    values = {options[name].name.replace("_", "-"): _plain(value) for name, value in _values(settings)}
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)


def _loader(path: Path) -> type[yaml.BaseLoader]:
    """A loader for which every value is the text that stands in the file, but for null: 1.10 is not 1.1, and off not false."""

    class Loader(yaml.BaseLoader):
        def construct_scalar(self, node: Any) -> Any:
            return None if node.style is None and node.value in ("", "~", "null") else super().construct_scalar(node)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            pairs = [(self.construct_object(key), self.construct_object(value, deep=True)) for key, value in node.value]
            return _once(path, pairs)

    return Loader


def _once(path: Path, pairs: Sequence[tuple[Any, Any]]) -> dict:
    names = [key for key, _ in pairs]
    if twice := next((key for key in names if names.count(key) > 1), None):
        raise BadInput(f"--config {path}: {twice}: is there twice")
    return dict(pairs)


def _without(arguments: list[str], option: str) -> tuple[list[str], str | None]:
    """The arguments without an option, and its value."""
    for i, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name == option and equals:
            return arguments[:i] + arguments[i + 1 :], value
        if name == option:
            if i + 1 == len(arguments):
                raise BadInput(f"{option}: give a file")
            return arguments[:i] + arguments[i + 2 :], arguments[i + 1]
    return arguments, None


def _name(word: str) -> str:
    return word.removeprefix("--").replace("-", "_")


@dataclass(frozen=True)
class _Option:
    """An option of a command.

    Attributes:
        kind: its type, with what tyro knows of it.
        names: all that it has: that of the field, and those on the command line.
        name: the one for the command line.
    """

    kind: Any
    names: set[str]
    name: str

    @property
    def is_positional(self) -> bool:
        """Whether it is a word of the command line without a name before it."""
        return tyro.conf.Positional in _extras(self.kind)

    def words(self, path: str, key: str, value: Any) -> list[str]:
        """It as words of a command line."""
        flag = f"--{self.name.replace('_', '-')}"
        if _bare(self.kind) is bool:
            if str(value).lower() not in YES + NO:
                raise BadInput(f"--config {path}: {key}: {value} is neither true nor false")
            return [flag if str(value).lower() in YES else f"--no-{flag[2:]}"]
        within = value if isinstance(value, list) else []
        if isinstance(value, bool | dict) or any(isinstance(each, list | dict) for each in within):
            raise BadInput(f"--config {path}: {key}: give a value, or a list of values")
        values = list(map(str, value)) if isinstance(value, list) else [str(value)]
        if self.is_positional:
            return values
        if tyro.conf.UseAppendAction in _extras(self.kind):
            return [word for each in values for word in (flag, each)]
        return [flag, *values]


def _options(settings: Any) -> dict[str, _Option]:
    """Every name that an option has -> the option."""
    options: dict[str, _Option] = {}
    hints = typing.get_type_hints(settings, include_extras=True)
    for field in dataclasses.fields(settings):
        kind = hints[field.name]
        if dataclasses.is_dataclass(part := _bare(kind)):
            options |= _options(part)
            continue
        known = [each for each in _extras(kind) if hasattr(each, "aliases")]
        name = _name(next((each.name for each in known if each.name), field.name))
        names = {field.name, name, *(_name(alias) for each in known for alias in each.aliases or ())}
        options |= dict.fromkeys(names, _Option(kind, names, name))
    return options


def _bare(kind: Any) -> Any:
    return kind.__origin__ if _extras(kind) else kind


def _extras(kind: Any) -> tuple:
    return getattr(kind, "__metadata__", ())


def _values(settings: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of options, those of parts of the settings among them."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _values(value)
        else:
            yield field.name, value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
