"""The weights of SAM, as an input of a config."""

from __future__ import annotations

from mmengine.config import Config

from mmgps.engine import InputMissingError
from mmgps.registry import INPUTS

from .weights import WeightsUnavailableError, find_weights

INITIALIZER = 'mmgps.SAMPretrained'


@INPUTS.register_module()
class SAMWeights:
    """The file that ``init_cfg`` of the config's model names. Nothing, where the model starts from elsewhere."""

    def provide(self, cfg: Config) -> None:
        """Fetch and check it; see :class:`mmgps.engine.configs.inputs.Input`."""
        start = cfg.model.get('init_cfg') or {}
        if start.get('type') != INITIALIZER:
            return
        try:
            find_weights(start['checkpoint'], start.get('sha256'))
        except WeightsUnavailableError as error:
            raise InputMissingError(str(error)[0].upper() + str(error)[1:]) from error
