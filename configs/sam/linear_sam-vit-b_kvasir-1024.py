_base_ = ['./base_sam-vit-b_kvasir-1024.py', '../_base_/tuning/linear.py']
