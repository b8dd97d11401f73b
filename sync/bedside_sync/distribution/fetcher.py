"""python-tuf's way to a source: files by path, its errors in the words the client knows."""

from collections.abc import Iterator
from typing import Final

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from bedside_core.errors import BedsideError, ForbiddenPathError, NotFoundError
from bedside_sync.distribution.sources import Source

BASE: Final = "bedside://repository/"


class SourceFetcher(FetcherInterface):
    """python-tuf's way to a `Source`."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        if not url.startswith(BASE):
            raise DownloadError("an address outside of the repository")
        try:
            blocks = self._source.read(url.removeprefix(BASE))
        except NotFoundError as cause:
            raise DownloadHTTPError("no such file", 404) from cause
        except ForbiddenPathError as cause:
            raise DownloadHTTPError("not to be read", 403) from cause
        except BedsideError as cause:
            raise DownloadError(cause.code) from cause
        return _wrapped(blocks)


def _wrapped(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The library wraps only what is raised before the first block: later errors are ours."""
    try:
        yield from blocks
    except BedsideError as cause:
        raise DownloadError(cause.code) from cause
