"""What is a user's mistake, and which sentence do they get?"""


class InputError(ValueError):
    """A mistake in what the user gave: the command prints the sentence and exits with code 2."""


class RunFailure(RuntimeError):
    """A run that could not finish: the command prints the sentence and exits with code 3."""
