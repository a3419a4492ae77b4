"""Measurements with known truth: each module is a small program, ``python -m videochat_tools.evaluation.NAME``."""
