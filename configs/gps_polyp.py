# The paper's polyp setting: SAM ViT-B on Kvasir-SEG at 1024 px, without prompts, GPS with K=1 on the image encoder.
#   python tools/train.py configs/gps_polyp.py
# Downloads the images (46 MB) and the weights (375 MB) if they are missing. docs/sam.md lists the requirements.
_base_ = ['./sam/gps_sam-vit-b_kvasir-1024.py']
