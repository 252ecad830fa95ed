"""Run the stand-in by itself: python -m tests.standin --port 46580."""

from __future__ import annotations

import argparse
import asyncio
import signal

from tests.standin.control import Control
from tests.standin.server import serving


async def main() -> None:
    """Serve until SIGTERM or SIGINT; the address is the first line on stdout."""
    options = argparse.ArgumentParser(prog="python -m tests.standin", description=__doc__)
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--long-workers", type=int, default=4, help="launches at a time")
    chosen = options.parse_args()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with serving(Control(long_workers=chosen.long_workers), host=chosen.host, port=chosen.port) as address:
        print(address, flush=True)
        await stop.wait()


asyncio.run(main())
