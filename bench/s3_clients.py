"""What GET and PUT cost with Mattemill's S3 client (boto3) and with obstore (Rust), turn by turn, in processor time.

    pip install obstore; python -m bench.s3_clients [--rounds 9]

Twenty photos of 1 to 2 megapixels are fetched, twenty bodies of 1.3 MB written. Mattemill compares the MD5 of what it
fetches with the ETag, and sends a CRC-32 with what it writes; obstore's way to know is to compare the MD5 of both.
`bare` is obstore without that.

Caveats: S3 is SeaweedFS on loopback without TLS, on the same cores. obstore's threads count, the server's time does
not.
"""

import argparse
import hashlib
import itertools
import json
import os
from collections.abc import Callable

from bench.machine import facts
from bench.photos import crops
from bench.turns import caveats, spread, turns
from pipeline.ids import Key
from pipeline.s3 import S3Store
from pipeline.settings import load_settings
from workers.local.stack import LocalStack

BODY = 1_300_000
PHOTOS = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    try:
        import obstore  # type: ignore[import-not-found,unused-ignore]
        from obstore.store import S3Store as Obstore  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise SystemExit("obstore is not installed: pip install obstore") from error
    with LocalStack() as stack:
        os.environ.update(stack.environment())
        with S3Store(load_settings()) as store:
            for bucket in ("photos", "out"):
                store.create_bucket(bucket)
            photos = dict(crops(PHOTOS, (1.0, 2.0)))
            for key, body in photos.items():
                store.put("photos", Key(key), body, content_type="image/jpeg")
            options = {
                "endpoint": os.environ["MATTEMILL_S3_ENDPOINT_URL"],
                "region": os.environ["AWS_REGION"],
                "access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
                "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
                "client_options": {"allow_http": True},
            }
            source, target = (Obstore(bucket, **options) for bucket in ("photos", "out"))
            body, numbers = os.urandom(BODY), itertools.count()
            png = {"Content-Type": "image/png"}

            def each_photo(get: Callable[[str], object]) -> None:
                for key in photos:
                    get(key)

            def checked_get(key: str) -> None:
                answer = obstore.get(source, key)
                found = hashlib.md5(bytes(answer.bytes()), usedforsecurity=False).hexdigest()
                if found != answer.meta["e_tag"].strip('"'):
                    raise ValueError(key)

            def write(put: Callable[[str], object]) -> None:
                for _ in range(PHOTOS):
                    put(f"{next(numbers)}.png")

            def checked_put(key: str) -> None:
                answer = obstore.put(target, key, body, attributes=png, use_multipart=False)
                if hashlib.md5(body, usedforsecurity=False).hexdigest() != answer["e_tag"].strip('"'):
                    raise ValueError(key)

            spent = turns(
                {
                    "get, boto3": lambda: each_photo(lambda key: store.get("photos", Key(key), max_bytes=1 << 26)),
                    "get, obstore": lambda: each_photo(checked_get),
                    "get, obstore bare": lambda: each_photo(lambda key: bytes(obstore.get(source, key).bytes())),
                    "put, boto3": lambda: write(lambda key: store.put("out", Key(key), body, content_type="image/png")),
                    "put, obstore": lambda: write(checked_put),
                    "put, obstore bare": lambda: write(
                        lambda key: obstore.put(target, key, body, attributes=png, use_multipart=False)
                    ),
                },
                asked.rounds,
            )
    each = {name: spread([1000 * seconds / PHOTOS for seconds in values]) for name, values in spent.items()}
    print(
        json.dumps({"bench": "s3_clients", "machine": facts(), "cpu_ms": each, "caveats": caveats(__doc__)}, indent=2)
    )


if __name__ == "__main__":
    main()
