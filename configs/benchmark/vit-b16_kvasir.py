_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/kvasir_seg_224x224.py',
    '../_base_/models/deit-tiny_fcn.py',
    '../_base_/schedules/kvasir_8e.py',
    '../_base_/tuning/gps.py',
]
# ViT-B/16 on all of Kvasir-SEG at 224 px, to measure the cost of the methods; not a recipe.
#   python tools/benchmark.py configs/benchmark/vit-b16_kvasir.py --data-root data/kvasir_seg
# Random weights by default. To load a file with the names of mmseg's VisionTransformer, add:
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE
model = dict(
    backbone=dict(embed_dims=768, num_heads=12),
    decode_head=dict(in_channels=[768, 768, 768, 768]))
