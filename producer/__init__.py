"""Producers: list, enqueue, sweep, wait, report; and the command line."""
