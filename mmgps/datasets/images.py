"""Images of a published polyp set, as an input of a config."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmgps.datasets.prepare import PolypSource, PrepareError, get_source, prepare
from mmgps.engine import InputMissingError, rooted_datasets
from mmgps.registry import INPUTS
from mmgps.utils.lock import one_at_a_time

DATASET = 'mmgps.PolypDataset'


@INPUTS.register_module()
class PolypImages:
    """A published set, downloaded and prepared in every ``data_root`` that does not exist yet.

    A folder that holds anything is left to :class:`PolypDataset`, which checks what it reads.

    Args:
        name: A name in ``mmgps.datasets.prepare.SOURCES``.

    Raises:
        ValueError: If no set is called so.
    """

    def __init__(self, name: str) -> None:
        self.source = get_source(name)

    def provide(self, cfg: Config) -> None:
        """Make what is missing; see :class:`mmgps.engine.configs.inputs.Input`."""
        roots = {Path(data['data_root']) for data in rooted_datasets(cfg) if data.get('type') == DATASET}
        for root in sorted(roots):
            if _is_empty(root):
                _make(self.source, root)


def _is_empty(root: Path) -> bool:
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def _make(source: PolypSource, root: Path) -> None:
    try:
        with one_at_a_time(root):
            if _is_empty(root):  # another process may have made it while this one waited
                prepare(source.name, root)
    except PrepareError as error:
        zipped = root.parent / (source.url or f'{source.name}.zip').rpartition('/')[2]
        raise InputMissingError(
            f'The images of {source.title} are missing from {root}: {error.__cause__ or error}. They come from '
            f'{source.where}; put the zip at {zipped} and run this again, or give the folder of a prepared set with '
            '--data-root'
        ) from error
