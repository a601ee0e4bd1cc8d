"""The two ways in which work ends early without a fault in the program."""


class InputError(ValueError):
    """Input that cannot be used: one sentence that names the file and says what to do.

    The command line prints the sentence and exits with status 2; the panel shows it.
    """


class Cancelled(Exception):  # noqa: N818 - not an error: somebody pressed Cancel
    """Raised out of a progress callback to stop the work at the next step."""
