"""What a file's bytes must hash to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


class ChecksumError(RuntimeError):
    """A file is complete and is not the one that was expected."""


@dataclass(frozen=True)
class Checksum:
    """What a file's bytes must hash to.

    Args:
        algorithm: A name that ``hashlib.new`` knows; ``'sha256'`` where there is a choice.
        digest: The digest in lower-case hexadecimal.
    """

    algorithm: str
    digest: str

    def verify(self, path: Path) -> None:
        """Check the file at ``path``.

        Raises:
            ChecksumError: If it hashes to something else.
        """
        hasher = hashlib.new(self.algorithm)
        with open(path, 'rb') as file:
            while block := file.read(1 << 20):
                hasher.update(block)
        if hasher.hexdigest() != self.digest:
            raise ChecksumError(
                f'{path} ({path.stat().st_size} bytes) has {self.algorithm} {hasher.hexdigest()}, '
                f'expected {self.digest}: it is damaged or another version'
            )
