"""Classification sets that mmpretrain does not have."""

from .fgvc import NABirds, StanfordDogs
from .labelled import ClassDataError, LabelledImages
from .vtab import VTAB
from .vtab_tasks import TASKS, Task, get_task

__all__ = ['TASKS', 'VTAB', 'ClassDataError', 'LabelledImages', 'NABirds', 'StanfordDogs', 'Task', 'get_task']
