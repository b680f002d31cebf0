"""The three published sizes of SAM and their files, in one place."""

from __future__ import annotations

from dataclasses import dataclass

HOST = 'https://dl.fbaipublicfiles.com/segment_anything/'


@dataclass(frozen=True)
class SAMSize:
    """Size of an image encoder; the rest of SAM is the same for all sizes.

    Args:
        embed_dims: Width of the tokens.
        depth: Number of blocks.
        num_heads: Heads of each attention.
        global_blocks: Indices from 0 of the blocks that attend over the whole image; the others attend within windows.
    """

    embed_dims: int
    depth: int
    num_heads: int
    global_blocks: tuple[int, ...]


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights by the authors of SAM, under Apache-2.0.

    Args:
        name: File name; its last part is the beginning of the file's MD5.
        sha256: SHA-256 of the file. The authors publish none; several independent public downloaders agree on it.
    """

    name: str
    sha256: str

    @property
    def url(self) -> str:
        return HOST + self.name


SIZES = {
    'vit_b': SAMSize(768, 12, 12, (2, 5, 8, 11)),
    'vit_l': SAMSize(1024, 24, 16, (5, 11, 17, 23)),
    'vit_h': SAMSize(1280, 32, 16, (7, 15, 23, 31)),
}
FILES = {
    'vit_b': PublishedFile('sam_vit_b_01ec64.pth', 'ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912'),
    'vit_l': PublishedFile('sam_vit_l_0b3195.pth', '3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622'),
    'vit_h': PublishedFile('sam_vit_h_4b8939.pth', 'a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e'),
}


def size_of(arch: str | dict) -> SAMSize:
    """Return the size called ``arch``, or make it from a dict with the fields of :class:`SAMSize`.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(arch, dict):
        return SAMSize(**arch)
    if arch not in SIZES:
        raise ValueError(
            f'no size of SAM is called {arch!r}; there are {", ".join(SIZES)}, or give a dict with embed_dims, depth, '
            'num_heads and global_blocks'
        )
    return SIZES[arch]
