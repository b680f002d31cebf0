"""The five polyp sets: their origins, the layouts of their files, and their download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mmgps.utils.download import Checksum, ChecksumError, DownloadError, Progress, download
from mmgps.utils.text import nearest

from .errors import SourceUnavailableError

PRANET = (
    'TestDataset.zip of PraNet (Fan et al., MICCAI 2020), linked from https://github.com/DengPingFan/PraNet, '
    'which holds this set in a separate folder'
)


@dataclass(frozen=True)
class Layout:
    """Arrangement of a set's files in its archive.

    Args:
        images: End of the path of the image folder; empty for the given folder itself.
        masks: The same of the mask folder, from the same parent.
        count: Published number of images in this copy of the set.
        mask_prefix: Prefix of a mask's name before the name of its image.
        image_name: Pattern for the whole name of an image, without suffix; other files are ignored.
    """

    images: str
    masks: str
    count: int
    mask_prefix: str = ''
    image_name: str = '.+'

    def __str__(self) -> str:
        prefix = f' named {self.mask_prefix}*' if self.mask_prefix else ''
        return f'{self.images or "."}/ with masks{prefix} in {self.masks or "."}/'


@dataclass(frozen=True)
class PolypSource:
    """A published polyp set.

    Args:
        name: Its name on the command line.
        title: Its published name.
        layouts: Possible layouts; the first that fits is used.
        where: Description of its origin.
        cite: The publication to cite.
        url: A stable public address of a zip, or ``None``.
        checksum: Checksum of the file at ``url``.
        val_list: Package file with the ids of the official validation split; ``None`` if the set is for testing.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    where: str
    cite: str
    url: str | None = None
    checksum: Checksum | None = None
    val_list: str | None = None

    def official_val(self) -> frozenset[str] | None:
        """Return the ids of the official validation split, or ``None`` if the whole set is for testing."""
        if self.val_list is None:
            return None
        return frozenset(resources.files(__package__).joinpath(self.val_list).read_text().split())


SOURCES = (
    PolypSource(
        name='kvasir-seg',
        title='Kvasir-SEG',
        layouts=(Layout('images', 'masks', 1000),),
        where='https://datasets.simula.no/kvasir-seg (research and education only)',
        cite='Jha et al., Kvasir-SEG: A Segmented Polyp Dataset, MMM 2020',
        url='https://datasets.simula.no/downloads/kvasir-seg.zip',
        # The host publishes none; two independent public downloaders agree on this one for this address.
        checksum=Checksum('md5', '6323d9094df93b35d43069a566ee1ca3'),
        val_list='kvasir_val.txt',
    ),
    PolypSource(
        name='cvc-clinicdb',
        title='CVC-ClinicDB',
        layouts=(
            Layout('PNG/Original', 'PNG/Ground Truth', 612),
            Layout('TIF/Original', 'TIF/Ground Truth', 612),
            Layout('Original', 'Ground Truth', 612),
            Layout('CVC-ClinicDB/images', 'CVC-ClinicDB/masks', 62),
            Layout('images', 'masks', 612),
        ),
        where='https://polyp.grand-challenge.org/CVCClinicDB/ (612 frames, a .rar: unpack it and give the folder); '
        f'its 62 customary test frames also in {PRANET}',
        cite='Bernal et al., WM-DOVA maps for accurate polyp highlighting in colonoscopy, CMIG 2015',
    ),
    PolypSource(
        name='cvc-colondb',
        title='CVC-ColonDB',
        layouts=(
            Layout('CVC-ColonDB/images', 'CVC-ColonDB/masks', 380),
            Layout('images', 'masks', 380),
            Layout('CVC-ColonDB', 'CVC-ColonDB', 300, mask_prefix='p', image_name=r'\d+'),
            Layout('', '', 300, mask_prefix='p', image_name=r'\d+'),
        ),
        where=f'{PRANET} (380 frames); the first publication, 300 frames named 1, p1, ..., is described at '
        'http://mv.cvc.uab.es/projects/colon-qa/cvccolondb',
        cite='Bernal et al., Towards automatic polyp detection with a polyp appearance model, Pattern Recognition 2012',
    ),
    PolypSource(
        name='etis-larib',
        title='ETIS-LaribPolypDB',
        layouts=(
            Layout('ETIS-LaribPolypDB', 'Ground Truth', 196, mask_prefix='p'),
            Layout('ETIS-LaribPolypDB/images', 'ETIS-LaribPolypDB/masks', 196),
            Layout('images', 'masks', 196),
        ),
        where=f'https://polyp.grand-challenge.org/EtisLarib/ (a .rar: unpack it and give the folder), or {PRANET}',
        cite='Silva et al., Toward embedded detection of polyps in WCE images for early diagnosis of colorectal '
        'cancer, IJCARS 2014',
    ),
    PolypSource(
        name='cvc-300',
        title='CVC-300',
        layouts=(Layout('CVC-300/images', 'CVC-300/masks', 60), Layout('images', 'masks', 60)),
        where=PRANET,
        cite='Vazquez et al., A benchmark for endoluminal scene segmentation of colonoscopy images, '
        'Journal of Healthcare Engineering 2017',
    ),
)


def get_source(name: str) -> PolypSource:
    """Return the source called ``name``.

    Raises:
        ValueError: If there is none; names the nearest and all.
    """
    by_name = {source.name: source for source in SOURCES}
    if name not in by_name:
        known = ', '.join(by_name)
        raise ValueError(f'no polyp set is called {name!r}; nearest: {nearest(name, by_name, 1)}; there are {known}')
    return by_name[name]


def fetch(source: PolypSource, folder: str | Path, progress: Progress | None = None) -> Path:
    """Download the zip of ``source`` into ``folder``, or find it there.

    Returns:
        Path of the zip.

    Raises:
        SourceUnavailableError: If it has no public address or the download failed; names the origin of the set, and the
            place for the zip.
    """
    target = Path(folder) / (source.url or f'{source.name}.zip').rpartition('/')[2]
    try:
        if source.url is None:
            raise DownloadError('it has no stable public address of a zip')
        return download(source.url, target, source.checksum, progress=progress)
    except (DownloadError, ChecksumError) as error:
        raise SourceUnavailableError(
            f'{source.title} is missing and was not downloaded: {error}. It comes from {source.where}. Get it from '
            f'there, put it at, for example, {target}, and add to the command '
            f'(python tools/prepare_polyp.py {source.name}): --source {target}'
        ) from error
