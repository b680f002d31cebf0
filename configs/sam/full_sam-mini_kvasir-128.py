_base_ = ['./base_sam-mini_kvasir-128.py', '../_base_/tuning/full.py']
