"""Real workers, Redis and S3 on days when everything breaks: `python -m tests.chaos`, `make chaos`."""
