"""The one exception that means: the user can fix this."""


class FmriModelsError(ValueError):
    """A problem with what the user gave.

    The message is one sentence (or a few short ones) that says what was found, what was expected and what to do. The
    command line prints it without a traceback and exits with 1.
    """
