"""The live page: read-only, server-rendered, behind a password. `mattemill web` serves it."""
