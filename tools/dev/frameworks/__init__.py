"""GPS on networks of timm, transformers and torchvision; see ``__main__``."""
