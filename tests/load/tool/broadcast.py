"""A WebSocket server that nobody here wrote, in the shape of a push server.

Python's `websockets`: /echo sends back, every other path listens, and what comes by POST /publish goes to all who
listen. websockets serves no POST, so that a plain asyncio server takes it on a second port. Prints both ports.
"""

import asyncio
import sys

import websockets

listeners = set()


async def serve(socket):
    if socket.request.path.startswith("/echo"):
        async for message in socket:
            await socket.send(message)
        return
    listeners.add(socket)
    try:
        await socket.wait_closed()
    finally:
        listeners.discard(socket)


async def publish(reader, writer):
    """One keep-alive connection of requests with Content-Length."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = (line.partition(b":") for line in head.lower().split(b"\r\n"))
            length = next(int(value) for name, _, value in fields if name == b"content-length")
            body = await reader.readexactly(length)
            websockets.broadcast(listeners, body.decode())
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    subscribers = await websockets.serve(serve, "127.0.0.1", 0)
    publishers = await asyncio.start_server(publish, "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (subscribers, publishers)]
    print(*ports, flush=True)
    # Ends with whoever started it: then the standard input ends.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
