"""The command ``videochat``: results on stdout, everything else on stderr.

Exit codes: 0 done, 1 an error that one line on stderr explains, 2 wrong usage, 130 interrupted. Everything heavy is
imported inside the command that needs it, so that ``videochat --help`` answers at once.
"""

from videochat_tools.cli.commands import app, main, open_library
from videochat_tools.cli.output import add_progress, print_error, quieten

__all__ = ["add_progress", "app", "main", "open_library", "print_error", "quieten"]
