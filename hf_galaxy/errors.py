"""The one exception for mistakes that the person who runs a command can mend."""


class BadInput(ValueError):
    """What was wrong, where (file, row, column) and what to do, in one line; the scripts show it without a traceback."""
