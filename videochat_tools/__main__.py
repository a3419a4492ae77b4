"""``python -m videochat_tools`` is the command ``videochat``."""

from videochat_tools.cli import main

main()
