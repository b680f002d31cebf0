"""Distributed training: wrappers of the model, and a strategy that shards the frozen base over processes."""

from .shards import ShardingError, check_run
from .strategy import GPSFSDPStrategy

__all__ = ['GPSFSDPStrategy', 'ShardingError', 'check_run']
