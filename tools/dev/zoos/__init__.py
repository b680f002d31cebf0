"""Swap GPS into one config of every architecture of the installed model zoos; see ``__main__``."""
