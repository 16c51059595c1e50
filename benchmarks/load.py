"""A load of GET requests: keep-alive connections that each ask again as soon as they are answered.

Run as a process of its own, it prints one JSON line: requests per second and the latencies' percentiles in ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time


async def ask(host: str, port: int, request: bytes, until: float, latencies: list[float]) -> None:
    """One connection; every answer must be a 200 with a Content-Length."""
    reader, writer = await asyncio.open_connection(host, port)
    while (begun := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        latencies.append(time.perf_counter() - begun)
    writer.close()


async def load(host: str, port: int, path: str, *, seconds: float, connections: int) -> dict[str, float]:
    """The figures of one block."""
    request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nx-tenant-id: bench\r\n\r\n".encode()
    latencies: list[float] = []
    begun = time.perf_counter()
    await asyncio.gather(*(ask(host, port, request, begun + seconds, latencies) for _ in range(connections)))
    took = time.perf_counter() - begun
    percentiles = statistics.quantiles(latencies, n=100)
    return {
        "requests": len(latencies),
        "requests_per_second": len(latencies) / took,
        "p50_ms": percentiles[49] * 1000,
        "p99_ms": percentiles[98] * 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=8)
    arguments = parser.parse_args()
    figures = asyncio.run(
        load("127.0.0.1", arguments.port, arguments.path, seconds=arguments.seconds, connections=arguments.connections)
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
