"""The value that one job returned: its frames as they come, in `frames`; at the end the value itself, in `result.json`."""

from __future__ import annotations

from typing import Final

from skyoperator.logs import frames
from skyoperator.logs.disk import Folder
from skyoperator.logs.segments import whole_lines
from skyoperator.logs.types import ResultLostError

FRAMES: Final = "frames"
RESULT: Final = "result.json"
FRAMES_BYTES: Final = 2 * 2**20


class Results:
    """The frames and the value of one log. Only one thread at a time may write."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._length = 0

    @property
    def there(self) -> bool:
        """Whether there is anything."""
        return self._folder.has(FRAMES) or self._folder.has(RESULT)

    def load(self, files: dict[str, int]) -> None:
        """Go on behind the last whole frame that is there. Raises OSError."""
        self._length = whole_lines(self._folder.pread(FRAMES, 0, FRAMES_BYTES)) if files.get(FRAMES) else 0

    def take(self, frame: frames.Frame) -> None:
        """Keep the frame. Raises OSError; ResultLostError if there are more than are kept."""
        line = frames.line_of(frame)
        if self._length + len(line) > FRAMES_BYTES:
            self._shorten()
        self._folder.append(FRAMES, self._length, line)
        self._length += len(line)

    def _shorten(self) -> None:
        lines = b"".join(map(frames.line_of, frames.that_count(self._frames())))
        if len(lines) > FRAMES_BYTES // 2:
            raise ResultLostError(f"the job returned more than {FRAMES_BYTES} bytes of parts of values, none of them complete")
        self._folder.replace(FRAMES, lines)
        self._length = len(lines)

    def settle(self) -> None:
        """Keep the value in place of its frames. Raises OSError; ResultLostError if frames came, but no value."""
        if self._length:
            value = self._assembled()
            self._folder.replace(RESULT, value)
            self._folder.discard(FRAMES)
            self._length = 0

    def read(self) -> bytes | None:
        """Return the JSON; None if no part of any came. Raises OSError; ResultLostError."""
        try:
            text = self._folder.pread(RESULT, 0, frames.VALUE_BYTES + 1)
        except FileNotFoundError:
            return self._assembled() if self._length else None
        try:
            frames.check_json(text)
        except ValueError as error:
            raise ResultLostError(f"the value that the job returned was damaged on the volume: {error}") from error
        return text

    def forget(self) -> None:
        """Remove all of it."""
        self._folder.discard(FRAMES)
        self._folder.discard(RESULT)
        self._length = 0

    def _frames(self) -> list[frames.Frame]:
        lines = self._folder.pread(FRAMES, 0, self._length).splitlines()
        return [frame for frame in map(frames.parse, lines) if frame]

    def _assembled(self) -> bytes:
        had = self._frames()
        try:
            value = frames.assemble(had)
        except frames.BrokenValueError as error:
            raise ResultLostError(str(error)) from error
        if value is None:
            raise ResultLostError(frames.missing(had))
        return value
