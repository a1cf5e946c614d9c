"""What every process of Mattemill agrees on: messages, errors, settings, storage, ledger, log."""

__version__ = "0.1.0"
