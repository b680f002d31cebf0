"""Load a checkpoint and predict with mmseg but without mmgps: python plain_mmseg.py CONFIG CHECKPOINT OUT"""

import importlib.util
import sys
from pathlib import Path

sys.modules['mmgps'] = None  # makes every import of mmgps fail

# Load this single file without the package: mmseg cannot be imported with a torchvision for another torch otherwise.
spec = importlib.util.spec_from_file_location('operators', Path(__file__).parents[2] / 'mmgps/utils/requirements.py')
operators = importlib.util.module_from_spec(spec)
spec.loader.exec_module(operators)
operators.declare_missing_operators()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmseg.apis import inference_model, init_model  # noqa: E402


def main(config: str, checkpoint: str, out: str) -> None:
    torch.set_num_threads(1)
    model = init_model(config, checkpoint, device='cpu')
    model.load_state_dict(torch.load(checkpoint, weights_only=True)['state_dict'])  # strict
    image = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    result = inference_model(model, image)
    torch.save({'logits': result.seg_logits.data, 'classes': list(model.dataset_meta['classes'])}, out)


if __name__ == '__main__':
    main(*sys.argv[1:])
