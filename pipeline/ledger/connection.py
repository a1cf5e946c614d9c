"""The way to the ledger's Redis."""

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from pipeline.errors import SetupError
from pipeline.settings import Settings


def connect(settings: Settings) -> redis.Redis:
    """A client of the ledger's Redis; it keeps trying for some seconds when the server restarts.

    Raises:
        SetupError: when the address is none.
    """
    try:
        return redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=15,
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,
            retry=Retry(ExponentialBackoff(cap=2, base=0.1), 8),
        )
    except ValueError as error:  # its text may hold a part of the password
        raise SetupError(
            "MATTEMILL_REDIS_URL is no address of a Redis server.", "such as redis://:PASSWORD@127.0.0.1:6379/0"
        ) from error


def impatient(settings: Settings) -> redis.Redis:
    """A client of the ledger's Redis that tries once, for a few seconds."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(), socket_connect_timeout=5, socket_timeout=5, retry=Retry(NoBackoff(), 0)
    )


def check(client: redis.Redis, settings: Settings) -> None:
    """Ask the server whether it is there.

    Raises:
        SetupError: says what is wrong, without the password.
    """
    once = impatient(settings)
    options = client.connection_pool.connection_kwargs
    place = f"{options.get('host', '?')}:{options.get('port', '?')}"
    try:
        once.ping()
    except redis.AuthenticationError as error:
        raise SetupError(f"Redis at {place} refuses the password.", "correct MATTEMILL_REDIS_URL") from error
    except (redis.RedisError, OSError) as error:
        raise SetupError(
            f"Redis at {place} cannot be reached.",
            "set MATTEMILL_REDIS_URL; `mattemill up` starts one and prints the lines to paste",
        ) from error
    finally:
        once.close()
