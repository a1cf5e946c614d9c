"""Measured figures: `python -m bench.<name>`; JSON on standard output, progress on standard error."""
