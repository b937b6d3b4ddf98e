"""How much of a server's answer is read: an endless one ends, and a compressed one, which could unfold, is not read.

Imported with the library `openai` only, which stands on httpx2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

MAX_ANSWER_BYTES = 32 * 2**20
"""Of one answer; a reply of 100,000 tokens has less than a fiftieth of that."""


async def limit(response: httpx2.Response) -> None:
    """A hook of the client: let no more of an answer be read than `MAX_ANSWER_BYTES`."""
    is_plain = response.headers.get("content-encoding", "identity") == "identity"
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Cut(response.stream, MAX_ANSWER_BYTES if is_plain else 0)


class _Cut(httpx2.AsyncByteStream):
    """The bytes of another stream, as many as are allowed."""

    def __init__(self, whole: httpx2.AsyncByteStream, most: int) -> None:
        self._whole, self._left = whole, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self._left:
            return
        async for chunk in self._whole:
            yield chunk[: self._left]
            self._left -= min(len(chunk), self._left)
            if not self._left:
                return

    async def aclose(self) -> None:
        await self._whole.aclose()
