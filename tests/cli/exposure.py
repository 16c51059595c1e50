"""What a running server shows to others on its machine and network: ports, environments, files."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_LISTENING = "0A"


def addresses(pids: Iterable[int]) -> set[str]:
    """Addresses on which the processes listen."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            own = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == _LISTENING and f"socket:[{fields[9]}]" in own:
                        found.add(_address(fields[1].partition(":")[0]))
    return found


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine reaches it."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def holders(secret: str, pids: Iterable[int]) -> Iterator[str]:
    """Command lines of the processes whose environment holds a text."""
    for pid in pids:
        with suppress(OSError):
            if secret.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                yield Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def shared_files(folder: Path) -> list[str]:
    """Files below `folder` that other users may read."""
    return [
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077
    ]


def _address(hexadecimal: str) -> str:
    """Of a line in /proc/net: words of 32 bits in the machine's order of bytes."""
    words = [bytes.fromhex(hexadecimal[start : start + 8])[::-1] for start in range(0, len(hexadecimal), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))
