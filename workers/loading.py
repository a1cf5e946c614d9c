"""One image from S3 to a model-sized picture, and the child process that does it.

A child works on one image at a time, so that its parent knows whom to blame when it crashes or hangs. It speaks JSON
over a pipe and writes pixels into a slot of shared memory that its parent chose.
"""

import gc
import hashlib
import json
import mmap
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection

import cv2
import numpy as np
from numpy.typing import NDArray

from model.codecs.decode import decode
from model.codecs.probe import check, probe
from model.heap import trim
from model.preprocess import enough, letterbox
from model.size_buckets import fit
from pipeline.errors import Code, ItemError, TransientError
from pipeline.ids import ETag, Key, SizeBucket
from pipeline.places import Places
from pipeline.s3 import S3Store
from pipeline.settings import Settings, load_settings
from pipeline.storage import ObjectStore
from workers.lifecycle import die_with_parent
from workers.loads import Loaded, Request
from workers.source_cache import SourceCache
from workers.stopwatch import Stopwatch


def load(
    store: ObjectStore, settings: Settings, cache: SourceCache, request: Request, out: NDArray[np.uint8]
) -> Loaded:
    """Fetch, decode strictly at reduced scale, letterbox into the first pixels of `out`, flat uint8; keep the photo.

    Raises:
        ItemError: what is wrong with this image.
    """
    Places.parse(settings.allowed_sources).check_item(request.bucket, request.key, "source")
    stage = Stopwatch()
    with stage("fetch"):
        etag = ETag(request.etag) if request.etag else None
        fetched = store.get(request.bucket, Key(request.key), etag=etag, max_bytes=settings.max_bytes)
        body = fetched.body
    with stage("decode"):
        header = probe(body)
        check(header, settings.max_megapixels)
        size = fit(header.height, header.width, [SizeBucket.parse(text) for text in request.size_buckets])
        needed = enough(header.height, header.width, size)
        picture = decode(body, max_megapixels=settings.max_megapixels, at_least=needed)
        pixels = out[: size.height * size.width * 3]
        _, box = letterbox(picture.rgb, size, pixels.reshape(size.height, size.width, 3))
    with stage("fetch"):
        cache.offer(request.bucket, request.key, fetched.etag, body)
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    digest.update(pixels.data)
    return Loaded(header.height, header.width, str(size), box, digest.hexdigest(), stage.milliseconds)


def serve(
    connection: Connection, memory: mmap.mmap, settings: Settings, store: ObjectStore, cache: SourceCache
) -> None:
    """Answer requests until the parent closes the pipe."""
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except EOFError:
            return
        offset, count = message.pop("offset"), message.pop("count")
        request = Request(**{**message, "size_buckets": tuple(message["size_buckets"])})
        out = np.frombuffer(memory, np.uint8, count, offset)
        try:
            loaded = load(store, settings, cache, request, out)
            reply: dict[str, object] = asdict(loaded)
        except ItemError as error:
            transient, took = isinstance(error, TransientError), error.milliseconds
            reply = {"code": error.code, "reason": error.reason, "transient": transient, "milliseconds": took}
        except MemoryError:
            reply = {
                "code": Code.TOO_LARGE,
                "reason": "It needs more memory than a loader may use.",
                "transient": False,
                "milliseconds": {},
            }
        connection.send_bytes(json.dumps(reply).encode())


def main() -> None:
    """The process that loaders are forked from: `python -m workers.loading PARENT CONTROL MEMORY SIZE`."""
    parent, control, memory_fd, size = map(int, sys.argv[1:])
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGQUIT):  # a terminal's reach the whole group; the parent decides
        signal.signal(number, signal.SIG_IGN)
    settings = load_settings()
    cv2.setNumThreads(1)
    store = S3Store(settings, pool=1)  # the first connection is opened by a loader
    gc.collect()
    trim()
    gc.freeze()  # a collection in a loader would write to every object, and so copy its page
    with mmap.mmap(memory_fd, size) as memory, socket.socket(fileno=control) as asked:
        if (pipe := fork_when_asked(asked)) is None:
            return
        resource.setrlimit(resource.RLIMIT_AS, (settings.child_memory, settings.child_memory))
        with Connection(pipe) as connection:
            connection.send_bytes(b"ready")
            serve(connection, memory, settings, store, SourceCache(settings))


def fork_when_asked(control: socket.socket) -> int | None:
    """Fork a loader for each pipe that comes, end the one whose id comes; both are answered, as text.

    Returns:
        in each loader its pipe, and in this process None when its parent has closed `control`.
    """
    own = os.getpid()
    while True:
        message, pipes, *_ = socket.recv_fds(control, 32, 1)
        if pipes:
            if (loader := os.fork()) == 0:
                die_with_parent(own)
                control.close()
                return pipes[0]
            os.close(pipes[0])
            control.send(str(loader).encode())
        elif message:
            loader = int(message)
            os.kill(loader, signal.SIGKILL)  # changes nothing of one that has ended and was not waited for
            control.send(str(os.waitstatus_to_exitcode(os.waitpid(loader, 0)[1])).encode())
        else:
            return None


if __name__ == "__main__":
    main()
