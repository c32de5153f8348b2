"""Sends requests to servers on this machine and times the answers. Runs as a process of its own, so that it measures with a core's help.

    python3 loads.py '{"ports": [8080], "body": {"steps": 4}, "seconds": 10, "connections": 32, "rate": null, "random": false}'

Without a rate every connection sends its next request when it has an answer. With a rate requests come evenly spaced, or with "random"
at random moments, as those of many users do. They come whether or not earlier ones were answered, and their time counts from the
moment that they come. Prints one JSON object.
"""

import asyncio
import json
import random
import sys
import time


class Connection(asyncio.Protocol):
    """One request at a time over a connection that is kept."""

    def __init__(self, request):
        self.request, self.got, self.answer = request, bytearray(), None

    def connection_made(self, transport):
        self.transport = transport

    async def ask(self):
        """The status of an answer, once all of it is there."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(self.request)
        return await self.answer

    def data_received(self, data):
        self.got += data
        head = self.got.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self.got.lower().find(b"content-length:", 0, head)
        end = head + 4 + int(self.got[at + 15 : self.got.find(b"\r", at)])
        if len(self.got) >= end:
            status = int(self.got[9:12])
            del self.got[:end]
            self.answer.set_result(status)

    def connection_lost(self, error):
        if self.answer and not self.answer.done():
            self.answer.set_exception(error or ConnectionError("closed"))

    @property
    def open(self):
        return not self.transport.is_closing()


class Load:
    def __init__(self, ports, body, seconds, connections, rate, random):
        body = json.dumps(body).encode()
        head = "POST /v1/samples HTTP/1.1\r\nHost: localhost\r\nAccept: image/png\r\nContent-Type: application/json\r\n"
        self.request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self.ports, self.seconds, self.connections, self.rate, self.random = (
            ports, seconds, connections, rate, random
        )
        # Seconds of every answer, by status.
        self.times, self.errors, self.opened = {}, 0, 0

    async def connect(self):
        self.opened += 1
        port = self.ports[self.opened % len(self.ports)]
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: Connection(self.request), "127.0.0.1", port))[1]

    async def one(self, connection, due):
        try:
            status = await connection.ask()
            self.times.setdefault(status, []).append(time.perf_counter() - due)
        except OSError:
            self.errors += 1

    async def closed(self, end):
        connection = await self.connect()
        while time.perf_counter() < end:
            await self.one(connection, time.perf_counter())
            if not connection.open:
                connection = await self.connect()

    async def paced(self, end):
        """Requests that find no connection wait, and their time runs."""
        waiting, workers, busy, moments = asyncio.Queue(), [], 0, random.Random(1)

        async def worker(connection):
            nonlocal busy
            while (due := await waiting.get()) is not None:
                busy += 1
                if not connection.open:
                    connection = await self.connect()
                await self.one(connection, due)
                busy -= 1

        gap = lambda: moments.expovariate(self.rate) if self.random else 1 / self.rate
        due = time.perf_counter()
        while (due := due + gap()) < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            waiting.put_nowait(time.perf_counter())
            if busy + waiting.qsize() > len(workers) and len(workers) < self.connections:
                workers.append(asyncio.create_task(worker(await self.connect())))
        for _ in workers:
            waiting.put_nowait(None)
        await asyncio.gather(*workers)

    async def run(self):
        start = time.perf_counter()
        end = start + self.seconds
        if self.rate:
            await self.paced(end)
        else:
            await asyncio.gather(*(self.closed(end) for _ in range(self.connections)))
        return self.told(time.perf_counter() - start)

    def told(self, seconds):
        done = sorted(self.times.get(200, []))
        at = lambda share: round(1e3 * done[min(int(share * len(done)), len(done) - 1)], 2) if done else None
        return {
            "images_per_s": round(len(done) / seconds, 1),
            "codes": {str(code): len(times) for code, times in sorted(self.times.items())},
            "errors": self.errors,
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
            "max_ms": at(1.0),
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Load(**json.loads(sys.argv[1])).run())))
