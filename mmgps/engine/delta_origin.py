"""What a delta keeps of its run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmgps.delta import Origin


def origin_of(
    cfg: Config,
    dataset_meta: Mapping[str, Any] | None,
    epoch: int | None,
    iteration: int | None,
    metrics: Mapping[str, float] | None = None,
) -> Origin:
    """The origin of a delta, as JSON values; what is none becomes text."""
    config, classes = (json.loads(json.dumps(part, default=str)) for part in (cfg.to_dict(), dict(dataset_meta or {})))
    return Origin(dict(metrics or {}), config, classes, epoch, iteration)
