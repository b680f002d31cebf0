"""The 19 tasks of VTAB-1k (Zhai et al., arXiv 1910.04867)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One task.

    Args:
        name: Of its folder.
        title: In the paper's table.
        group: ``natural``, ``specialized`` or ``structured``.
        classes: Number of classes.
        test: Images to test on, as table 8 of Jia et al. (ECCV 2022, arXiv 2203.12119) gives them. There are always 800
            to train on and 200 to choose by.
    """

    name: str
    title: str
    group: str
    classes: int
    test: int


TASKS = (
    Task('cifar', 'CIFAR-100', 'natural', 100, 10_000),
    Task('caltech101', 'Caltech101', 'natural', 102, 6_084),
    Task('dtd', 'DTD', 'natural', 47, 1_880),
    Task('oxford_flowers102', 'Flowers102', 'natural', 102, 6_149),
    Task('oxford_iiit_pet', 'Pets', 'natural', 37, 3_669),
    Task('svhn', 'SVHN', 'natural', 10, 26_032),
    Task('sun397', 'Sun397', 'natural', 397, 21_750),
    Task('patch_camelyon', 'Patch Camelyon', 'specialized', 2, 32_768),
    Task('eurosat', 'EuroSAT', 'specialized', 10, 5_400),
    Task('resisc45', 'Resisc45', 'specialized', 45, 6_300),
    Task('diabetic_retinopathy', 'Retinopathy', 'specialized', 5, 42_670),
    Task('clevr_count', 'Clevr/count', 'structured', 8, 15_000),
    Task('clevr_dist', 'Clevr/distance', 'structured', 6, 15_000),
    Task('dmlab', 'DMLab', 'structured', 6, 22_735),
    Task('kitti', 'KITTI/distance', 'structured', 4, 711),
    Task('dsprites_loc', 'dSprites/loc', 'structured', 16, 73_728),
    Task('dsprites_ori', 'dSprites/ori', 'structured', 16, 73_728),
    Task('smallnorb_azi', 'SmallNORB/azi', 'structured', 18, 12_150),
    Task('smallnorb_ele', 'SmallNORB/ele', 'structured', 9, 12_150),
)


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        ValueError: If there is none; the message names the nearest and all.
    """
    by_name = {task.name: task for task in TASKS}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1)
        hint = f'; nearest: {near[0]}' if near else ''
        raise ValueError(f'no task of VTAB-1k is called {name!r}{hint}; there are {", ".join(by_name)}')
    return by_name[name]
