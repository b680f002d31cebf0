"""The unfinished file of a download."""

from __future__ import annotations

import os
from http.client import HTTPResponse
from pathlib import Path

from mmgps.checksum import Checksum, ChecksumError


class PartialFile:
    """The unfinished file beside the target, and the validator its bytes came with.

    Bytes are added only if the server confirms that validator, so that two versions of a file are never joined.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f'{target.name}.part')
        self.tag = target.with_name(f'{target.name}.part.tag')

    def size(self) -> int:
        """Bytes had so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def headers(self) -> dict[str, str]:
        """Request headers that ask for the rest; none where it cannot be joined safely."""
        if not self.size() or not self.tag.exists():
            return {}
        return {'Range': f'bytes={self.size()}-', 'If-Range': self.tag.read_text()}

    def remember(self, response: HTTPResponse) -> None:
        """Keep the validator of the version that ``response`` brings."""
        etag = response.headers.get('ETag', '')
        # A weak tag does not promise equal bytes, and RFC 9110 forbids it in If-Range.
        validator = etag if etag.startswith('"') else response.headers.get('Last-Modified', '')
        if validator:
            self.tag.write_text(validator)
        else:
            self.tag.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget what was had."""
        self.path.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)

    def accept(self, url: str, checksum: Checksum | None) -> None:
        """Check the whole file and give it its final name; a file that fails is removed."""
        try:
            if checksum:
                checksum.verify(self.path)
        except ChecksumError as error:
            self.discard()
            raise ChecksumError(f'what {url} sent was removed: {error}') from None
        os.replace(self.path, self.target)
        self.tag.unlink(missing_ok=True)
