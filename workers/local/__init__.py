"""Embedded Valkey and SeaweedFS for `mattemill demo`, `mattemill up` and the tests (extra `embedded`)."""
