# One connection per neuron, chosen by the contrastive loss on two views of the training images, drawn in pairs of the
# same class. The views use the augmentation of training.
custom_hooks = [
    dict(
        type='mmgps.GPSHook',
        k=1,
        loss=dict(type='mmgps.SupConLoss', order=dict(type='mmgps.ClassBalancedSampler', images_per_class=2), batch_size=34)),
]
