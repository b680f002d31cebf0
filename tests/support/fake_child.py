"""Fake process of a run, which writes a score at once and without torch.

The score depends on the rate and peaks at 3e-3. ``FAKE_FAIL`` is the label of a method that fails, ``FAKE_DIVERGE`` the
lowest rate at which trials diverge, ``FAKE_SLEEP`` the seconds before the result, and ``FAKE_TOGETHER`` the number of
runs that have to start before any of them ends.
"""

import json
import math
import os
import runpy
import sys
import time
from pathlib import Path

CHILD = Path(__file__).resolve().parents[2] / 'mmgps/compare/child.py'
PATIENCE_S = 15
TRAINED = {'full': 5000, 'bias': 50, 'gps': 80, 'linear': 0}


def main(folder: Path) -> None:
    runpy.run_path(str(CHILD))['start_parent_watchdog']()
    facts = json.loads((folder / 'run.json').read_text())
    notes = folder.parents[1] / 'calls.txt'
    with notes.open('a') as calls:
        calls.write(f'{folder.parent.name}/{folder.name.rpartition("-")[0]} {os.getpid()}\n')
    time.sleep(float(os.environ.get('FAKE_SLEEP', 0)))
    deadline = time.monotonic() + PATIENCE_S
    while len(notes.read_text().splitlines()) < int(os.environ.get('FAKE_TOGETHER', 0)):
        if time.monotonic() > deadline:
            sys.exit('the others did not come')
        time.sleep(0.01)
    if facts['method'] == os.environ.get('FAKE_FAIL'):
        sys.exit('ValueError: no such luck')
    score = 80 - 10 * abs(math.log10(facts['lr'] / 3e-3)) + facts['seed']
    if facts['trial'] and facts['lr'] >= float(os.environ.get('FAKE_DIVERGE', 'inf')):
        (folder / 'result.json').write_text(json.dumps({**facts, 'metrics': {}, 'diverged': 'NaN'}))
        return
    (folder / 'iter_4.pth').write_text('weights')
    moved = TRAINED[facts['method'].partition(':')[0]]
    found = dict(
        metrics={'Dice': score, 'IoU': score - 10, 'mDice': score + 5, 'mIoU': score + 2, 'aAcc': 99.0},
        trained=moved + 100, total=5100, backbone_trained=moved, backbone_total=5000,
        step_s=0.1 + moved / 1e5, peak_bytes=2**28 + moved * 2**10, iterations=4, machine='a machine', commit='abc',
        threads=1,
    )  # fmt: skip
    (folder / 'result.json').write_text(json.dumps({**facts, **found}))
    print('done')


if __name__ == '__main__':
    main(Path(sys.argv[1]))
