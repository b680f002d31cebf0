"""Deltas: what a run changed, in a small file. See docs/deltas.md."""

from __future__ import annotations

import argparse

from mmgps.requirements import require

require('mmseg')

from mmgps.engine import add_delta_commands, run_delta_command  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_delta_commands(parser)
    return parser.parse_args()


def main() -> None:
    print(run_delta_command(parse_args()))


if __name__ == '__main__':
    main()
