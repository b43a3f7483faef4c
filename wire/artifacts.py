"""A store for results that are too large for an event (the claim check pattern), through fsspec."""

from __future__ import annotations

import asyncio
from typing import Any

from contract import problems
from contract.problems import ProblemError


class Artifacts:
    """Files below one address: `file:///mnt/artifacts`, `s3://bucket/folder`, `gs://…`. Blocking calls run on threads.

    The store itself removes old files (a bucket's life-cycle rule); they must outlive every consumer.

    Raises ValueError, with one line, for an address that cannot be used.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # imported here: only few deployments need it

        scheme, _, place = url.partition("://")
        if not scheme or not place.strip("/") or "::" in url:
            raise ValueError(f"{url!r} is no address such as file:///mnt/artifacts or s3://bucket/folder")
        try:
            self._files: Any = fsspec.filesystem(scheme)
        except (ImportError, ValueError) as error:
            raise ValueError(f"{scheme}:// cannot be used here: {error}") from None
        self.url = url.rstrip("/")

    async def put(self, name: str, data: bytes) -> str:
        """Write a file, or overwrite it; its address. UNAVAILABLE when that fails."""
        address = self._checked(f"{self.url}/{name}")
        await self._on_thread("written", self._write, address, data)
        return address

    async def get(self, address: str, limit: int) -> bytes:
        """Read a file; FORBIDDEN outside of our address, RESULT_TOO_LARGE over `limit` bytes, UNAVAILABLE else."""
        data: bytes = await self._on_thread("read", self._read, self._checked(address), limit)
        if len(data) > limit:
            raise ProblemError(problems.RESULT_TOO_LARGE, f"A result may have at most {limit} bytes.")
        return data

    async def size(self, address: str) -> int:
        """Of a file, in bytes; FORBIDDEN outside of our address, UNAVAILABLE when that fails."""
        return int(await self._on_thread("read", self._files.size, self._checked(address)) or 0)

    async def delete(self, address: str) -> None:
        """Remove a file; FORBIDDEN outside of our address, UNAVAILABLE when that fails."""
        await self._on_thread("removed", self._files.rm_file, self._checked(address))

    def _checked(self, address: str) -> str:
        """The address, if it lies below ours; FORBIDDEN if not. Addresses come with events, which anyone may send."""
        if not address.startswith(self.url + "/") or ".." in address.split("/") or "::" in address:
            raise ProblemError(problems.FORBIDDEN, "The dataref lies outside of the artifacts' address.")
        return address

    def _write(self, address: str, data: bytes) -> None:
        self._files.makedirs(self.url, exist_ok=True)
        self._files.pipe_file(address, data)

    def _read(self, address: str, limit: int) -> bytes:
        data: bytes = self._files.cat_file(address, end=limit + 1)
        return data

    async def _on_thread(self, done: str, work: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(work, *arguments)
        except Exception as error:  # each file system has exceptions of its own
            detail = f"The artifact could not be {done}: {type(error).__name__}."
            raise ProblemError(problems.UNAVAILABLE, detail, retry_after=5) from error
