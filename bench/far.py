"""A server that is far away: `python -m bench.far PORT MS` forwards to a port of this machine, MS there and back.

Prints the port that it listens on. Bytes are as many and come in the same order, each half of MS later than they were
sent, so that what is far is far and not slow: it takes the processor time of this machine, 1 to 2 ms an image.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from workers.local.ports import LOOPBACK

_PIECE = 1 << 20


@contextmanager
def far_away(url: str, milliseconds: float) -> Iterator[str]:
    """The URL at which the server of this machine at `url` is so far away, while this lasts; `url` itself for 0."""
    if not milliseconds:
        yield url
        return
    server = urlsplit(url)
    command = [sys.executable, "-m", "bench.far", str(server.port), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as between:
        try:
            assert between.stdout
            yield f"http://{server.hostname}:{int(between.stdout.readline())}"
        finally:
            between.terminate()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    pieces = asyncio.Queue[tuple[float, bytes]]()

    async def arrive() -> None:
        while (piece := await pieces.get())[1]:
            await asyncio.sleep(piece[0] - time.monotonic())
            writer.write(piece[1])
            await writer.drain()
        writer.close()

    arriving = asyncio.create_task(arrive())
    data = b"-"
    while data:
        try:
            data = await reader.read(_PIECE)
        except OSError:
            data = b""
        pieces.put_nowait((time.monotonic() + delay, data))
    await asyncio.gather(arriving, return_exceptions=True)


async def _serve(port: int, delay: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(LOOPBACK, port, limit=2 * _PIECE)
        await asyncio.gather(_pass_on(reader, back, delay), _pass_on(there, writer, delay))

    server = await asyncio.start_server(connected, LOOPBACK, 0, limit=2 * _PIECE)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2]) / 2000))
