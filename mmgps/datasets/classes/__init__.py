"""Sets of images with one class each, where mmpretrain has none for them."""

from .fgvc import NABirds, StanfordDogs
from .labelled import ClassDataError, LabelledImages
from .vtab import VTAB
from .vtab_tasks import TASKS, Task, get_task

__all__ = ['TASKS', 'VTAB', 'ClassDataError', 'LabelledImages', 'NABirds', 'StanfordDogs', 'Task', 'get_task']
