"""Classification sets that mmpretrain does not have."""

from mmgps.datasets.classes.vtab import VTAB
from mmgps.datasets.classes.vtab_tasks import TASKS, Task, get_task

from .fgvc import NABirds, StanfordDogs
from .labelled import ClassDataError, LabelledImages

__all__ = ['TASKS', 'VTAB', 'ClassDataError', 'LabelledImages', 'NABirds', 'StanfordDogs', 'Task', 'get_task']
