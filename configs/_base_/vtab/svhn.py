_base_ = ['../vtab.py']
__task = _base_.tasks.svhn
train_dataloader, val_dataloader, test_dataloader = __task.train, __task.test, __task.test
optim_wrapper, param_scheduler, custom_hooks, fitted = __task.optim, __task.schedule, __task.hooks, __task.model
tasks = dict(_delete_=True)
