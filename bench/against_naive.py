"""Mattemill against a naive Celery worker: one of the peers of `bench.against_peers`, with the default model.

python -m bench.against_naive
"""

from bench.against_peers import main

if __name__ == "__main__":
    main(["--peers", "naive_celery", "--model", "u2netp", "--photos", "200"])
