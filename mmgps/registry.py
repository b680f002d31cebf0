"""Registries of the ``mmgps`` scope: children of mmengine's registries, filled on first use."""

from mmgps.utils.requirements import require

require('mmengine')

from mmengine import registry as root  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

HOOKS = Registry(
    'hook', parent=root.HOOKS, scope='mmgps', locations=['mmgps.engine', 'mmgps.visualization', 'mmgps.report']
)
OPTIM_WRAPPERS = Registry('optim_wrapper', parent=root.OPTIM_WRAPPERS, scope='mmgps', locations=['mmgps.engine'])
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=root.PARAM_SCHEDULERS, scope='mmgps', locations=['mmgps.engine']
)
STRATEGIES = Registry('strategy', parent=root.STRATEGIES, scope='mmgps', locations=['mmgps.engine'])
MODELS = Registry('model', parent=root.MODELS, scope='mmgps', locations=['mmgps.engine', 'mmgps.models'])
WEIGHT_INITIALIZERS = Registry(
    'weight initializer', parent=root.WEIGHT_INITIALIZERS, scope='mmgps', locations=['mmgps.models']
)
DATASETS = Registry('dataset', parent=root.DATASETS, scope='mmgps', locations=['mmgps.datasets'])
TRANSFORMS = Registry('transform', parent=root.TRANSFORMS, scope='mmgps', locations=['mmgps.datasets'])
METRICS = Registry('metric', parent=root.METRICS, scope='mmgps', locations=['mmgps.evaluation'])
VISUALIZERS = Registry('visualizer', parent=root.VISUALIZERS, scope='mmgps', locations=['mmgps.visualization'])

# Kinds of components that mmengine does not have: these registries have no parent.
METHODS = Registry('tuning method', scope='mmgps', locations=['mmgps.engine'])
SCORES = Registry('connection score', scope='mmgps', locations=['mmgps.engine'])
CHOICES = Registry('connection choice', scope='mmgps', locations=['mmgps.engine'])
SPARSE = Registry('sparse training', scope='mmgps', locations=['mmgps.engine'])
LEAN = Registry('lean option', scope='mmgps', locations=['mmgps.engine'])
INPUTS = Registry('input', scope='mmgps', locations=['mmgps.datasets', 'mmgps.models'])
SELECTION_LOSSES = Registry('selection loss', scope='mmgps', locations=['mmgps.engine'])
MICRO_BATCHES = Registry('division of a selection pass', scope='mmgps', locations=['mmgps.engine'])
VIEW_ORDERS = Registry('order of a selection pass', scope='mmgps', locations=['mmgps.engine'])
EMBEDDINGS = Registry('embedding to contrast', scope='mmgps', locations=['mmgps.engine'])
