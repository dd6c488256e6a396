"""A TCP proxy that lets every byte arrive late: what a long way does to windows.

    python -m tests.bench.delay LISTEN_PORT HOST PORT DELAY_SECONDS

The kernel here has no netem. Bytes are kept for half of the round trip each way;
what is under way is bounded by the receiver's own windows, as on a real path, as
long as `HELD_BYTES` is more than rate x delay.
"""

import asyncio
import collections
import sys

HELD_BYTES = 64 << 20
READ_BYTES = 256 << 10


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Hand on what is read, `delay` seconds after it was."""
    loop = asyncio.get_running_loop()
    under_way: collections.deque[tuple[float, bytes]] = collections.deque()
    filled, drained = asyncio.Event(), asyncio.Event()
    held = 0
    ended = False

    async def send() -> None:
        nonlocal held
        while True:
            if not under_way:
                if ended:
                    break
                filled.clear()
                await filled.wait()
                continue
            due, data = under_way.popleft()
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(data)
            await writer.drain()
            held -= len(data)
            drained.set()
        writer.close()

    sender = asyncio.create_task(send())
    try:
        while data := await reader.read(READ_BYTES):
            held += len(data)
            under_way.append((loop.time() + delay, data))
            filled.set()
            while held > HELD_BYTES:
                drained.clear()
                await drained.wait()
    except ConnectionError:
        pass
    ended = True
    filled.set()
    await asyncio.gather(sender, return_exceptions=True)


async def serve(listen_host: str, listen_port: int, host: str, port: int, delay: float) -> None:
    """Serve until cancelled; `delay` is the round trip's, in seconds."""

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(
            _pass(reader, there_writer, delay / 2), _pass(there_reader, writer, delay / 2)
        )

    server = await asyncio.start_server(met, listen_host, listen_port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(
        serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
    )
