"""Producers: list, enqueue, sweep, wait, report; and the command line."""

from producer.api import Producer, Run, StallError, Summary

__all__ = ["Producer", "Run", "StallError", "Summary"]
