# Settings that all classifiers share.
_base_ = ['./default_runtime.py']
default_scope = 'mmpretrain'
visualizer = dict(_delete_=True, type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
