"""`kubectl port-forward` as a child: kubectl is there for a kubectl plugin, and knows every way to log in and every proxy."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final

from skyoperator.cli.errors import CliError, DroppedError
from skyoperator.cli.target import Target

POD_SECONDS: Final = 20
END_SECONDS: Final = 5.0
_ANNOUNCED: Final = re.compile(r"^Forwarding from 127\.0\.0\.1:(\d+) ->")


@dataclass(frozen=True, slots=True)
class Service:
    """The log Service of a release."""

    namespace: str
    name: str
    port: int


def command(service: Service, target: Target) -> list[str]:
    """Return the command line that forwards a free local port."""
    flags = [f"--{flag}={value}" for flag, value in (("kubeconfig", target.kubeconfig), ("context", target.context)) if value]
    where = [f"service/{service.name}", f":{service.port}", "--address=127.0.0.1", f"--namespace={service.namespace}"]
    return ["kubectl", "port-forward", *where, f"--pod-running-timeout={POD_SECONDS}s", *flags]


def announced_port(line: str) -> int | None:
    """Return the local port of kubectl's line about it; None of any other line."""
    found = _ANNOUNCED.match(line)
    return int(found[1]) if found else None


@contextmanager
def port_forward(service: Service, target: Target) -> Iterator[int]:
    """Yield the local port while it is forwarded. Raises DroppedError if kubectl gives up, CliError if there is no kubectl."""
    with tempfile.TemporaryFile("w+") as complaints:
        try:
            child = subprocess.Popen(
                command(service, target), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True
            )
        except FileNotFoundError as error:
            raise CliError("There is no kubectl on the PATH: it is needed to reach the log service.") from error
        try:
            yield _port_of(child, service, complaints)
        finally:
            _end(child)


def _port_of(child: subprocess.Popen[str], service: Service, complaints: IO[str]) -> int:
    """Return the port once kubectl says it; its later lines are read away, so that it never waits for us."""
    assert child.stdout is not None
    for line in child.stdout:
        if (port := announced_port(line)) is not None:
            threading.Thread(target=_drain, args=(child.stdout,), daemon=True).start()
            return port
    child.wait()
    complaints.seek(0)
    raise DroppedError(f"kubectl port-forward to service {service.namespace}/{service.name} failed: {complaints.read().strip()}")


def _drain(lines: IO[str]) -> None:
    with lines:
        for _ in lines:
            pass


def _end(child: subprocess.Popen[str]) -> None:
    """End the child, whatever it does."""
    child.terminate()
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
