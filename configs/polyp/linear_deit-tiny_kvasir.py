_base_ = ['./base_deit-tiny_kvasir.py', '../_base_/tuning/linear.py']
