"""The 19 tasks of VTAB-1k (Zhai et al., arXiv 1910.04867), with the GPS recipe for each.

``tools/dev/vtab_configs.py`` generates the configs of the tasks from this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmgps.utils.text import nearest


@dataclass(frozen=True)
class Task:
    """One task, which always has 800 training and 200 validation images.

    The recipe is that of GPS with a ViT-B/16, from ``train_scripts/vit/vtab`` of
    https://github.com/FightingFighting/GPS, commit c52ea8a.

    Args:
        name: Name of its folder.
        group: ``natural``, ``specialized`` or ``structured``.
        classes: Number of classes.
        test: Number of test images, from table 8 of Jia et al. (ECCV 2022, arXiv 2203.12119).
        lr: Learning rate.
        batch: Batch size.
        k: Connections per neuron.
        drop_path: Rate of stochastic depth.
    """

    name: str
    group: str
    classes: int
    test: int
    lr: float
    batch: int
    k: int
    drop_path: float


TASKS = (
    Task('cifar', 'natural', 100, 10_000, 1e-2, 32, 1, 0.0),
    Task('caltech101', 'natural', 102, 6_084, 2e-3, 16, 1, 0.0),
    Task('dtd', 'natural', 47, 1_880, 2e-3, 16, 1, 0.0),
    Task('oxford_flowers102', 'natural', 102, 6_149, 2e-3, 16, 1, 0.0),
    Task('oxford_iiit_pet', 'natural', 37, 3_669, 3e-3, 32, 1, 0.0),
    Task('svhn', 'natural', 10, 26_032, 5e-3, 32, 1, 0.0),
    Task('sun397', 'natural', 397, 21_750, 2.5e-3, 16, 1, 0.0),
    Task('patch_camelyon', 'specialized', 2, 32_768, 4e-3, 32, 2, 0.0),
    Task('eurosat', 'specialized', 10, 5_400, 2e-3, 16, 1, 0.0),
    Task('resisc45', 'specialized', 45, 6_300, 1.5e-3, 16, 1, 0.1),
    Task('diabetic_retinopathy', 'specialized', 5, 42_670, 2e-3, 32, 1, 0.2),
    Task('clevr_count', 'structured', 8, 15_000, 3e-4, 16, 1, 0.1),
    Task('clevr_dist', 'structured', 6, 15_000, 2e-3, 16, 1, 0.1),
    Task('dmlab', 'structured', 6, 22_735, 1.5e-3, 16, 1, 0.1),
    Task('kitti', 'structured', 4, 711, 1e-3, 16, 1, 0.0),
    Task('dsprites_loc', 'structured', 16, 73_728, 7e-3, 32, 1, 0.0),
    Task('dsprites_ori', 'structured', 16, 73_728, 5e-4, 16, 1, 0.2),
    Task('smallnorb_azi', 'structured', 18, 12_150, 3e-3, 32, 1, 0.1),
    Task('smallnorb_ele', 'structured', 9, 12_150, 3e-4, 32, 1, 0.2),
)


def get_task(name: str) -> Task:
    """Return the task called ``name``.

    Raises:
        ValueError: If there is none; names the nearest and all.
    """
    by_name = {task.name: task for task in TASKS}
    if name not in by_name:
        near, known = nearest(name, by_name, 1), ', '.join(by_name)
        raise ValueError(f'no task of VTAB-1k is called {name!r}; nearest: {near}; there are {known}')
    return by_name[name]
