"""What does the command line answer?"""

from mcaprobe.__main__ import main


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    """Return exit code, output and error stream of the command line; no traceback may be in it."""
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    output, errors = capsys.readouterr()
    assert "Traceback" not in output + errors
    return code, output, errors
