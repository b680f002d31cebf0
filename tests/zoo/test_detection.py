"""GPS on configs of mmdet's zoo, and on those of mmseg that need mmdet or compiled operators of mmcv."""

import pytest

from mmgps.utils.requirements import require

pytest.importorskip('mmdet')
for stack in ('mmseg', 'mmdet'):
    require(stack)

from test_zoo import check_both_ways  # noqa: E402

SAMPLE = [
    ('mmdet', 'retinanet/retinanet_r18_fpn_1x_coco.py'),
    ('mmdet', 'yolox/yolox_nano_8xb8-300e_coco.py'),
    ('mmdet', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'),
    ('mmseg', 'mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py'),
    ('mmseg', 'ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'),
]


@pytest.mark.parametrize(('stack', 'config'), SAMPLE)
def test_sample(stack: str, config: str) -> None:
    check_both_ways(stack, config)
