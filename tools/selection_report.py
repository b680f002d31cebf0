"""Draw the connections of a selection, alone or compared with those of another task: a page, pictures and numbers."""

from __future__ import annotations

import argparse

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.engine import add_config_arguments, read_config, weights_only  # noqa: E402
from mmgps.report import report_of_file  # noqa: E402
from mmgps.utils.text import printable  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('selection', help='selection.safetensors of a run, or a delta')
    parser.add_argument('out', help='folder for index.html, selection.json and the pictures')
    parser.add_argument('--other', help='selection or delta of another task on the same base')
    parser.add_argument('--names', nargs=2, default=['this task', 'the other task'], metavar='NAME')
    parser.add_argument('--target', default='backbone', help='path of the backbone within the model')
    return parser.parse_args()


@weights_only()
def main() -> None:
    args = parse_args()
    report = report_of_file(read_config(args), args.selection, args.target, args.other, args.names)
    print(printable(report.facts.title))
    print(report.write(args.out))


if __name__ == '__main__':
    main()
