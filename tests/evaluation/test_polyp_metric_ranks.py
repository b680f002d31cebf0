import os
import socket

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from torch import distributed, multiprocessing

from mmgps.evaluation import PolypMetric

COUNT = 5


def samples():
    rng = np.random.default_rng(0)
    made = []
    for index in range(COUNT):
        truth = torch.as_tensor(rng.random((1, 12, 15 + index)) < 0.4).long()
        score = torch.as_tensor(rng.random((1, 12, 15 + index)))
        plane = {'gt_sem_seg': truth, 'pred_sem_seg': (score > 0.5).float(), 'seg_logits': score}
        made.append({'img_path': f'{index}.jpg', **{key: {'data': data} for key, data in plane.items()}})
    return made


def evaluate(mine, table=None):
    evaluator = Evaluator([PolypMetric(per_image_file=table)])
    evaluator.process(mine)
    return evaluator.evaluate(COUNT)


def work(rank, ranks, port, folder):
    os.chdir(folder)  # mmengine collects through a folder in the working directory
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=rank, world_size=ranks)
    # As mmengine's sampler shares them out: the first image fills up the last round.
    indices = [*range(COUNT), 0][rank::ranks]
    found = evaluate([samples()[index] for index in indices], f'{folder}/scores.csv')
    torch.save(found, f'{folder}/{rank}.pt')
    distributed.destroy_process_group()


def test_two_ranks_score_like_one(tmp_path):
    expected = evaluate(samples(), str(tmp_path / 'one.csv'))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(work, args=(2, port, str(tmp_path)), nprocs=2)
    for rank in range(2):
        assert torch.load(tmp_path / f'{rank}.pt') == expected
    assert (tmp_path / 'scores.csv').read_text() == (tmp_path / 'one.csv').read_text()
