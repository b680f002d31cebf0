"""Handle deltas, small files with the changes of a run. See docs/deltas.md."""

from __future__ import annotations

import argparse
import sys

from mmgps.utils.requirements import require

require('mmseg')

from mmgps.engine import add_delta_commands, run_delta_command, weights_only  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_delta_commands(parser)
    return parser.parse_args()


@weights_only()
def main() -> None:
    args = parse_args()
    try:
        print(run_delta_command(args))
    except (ValueError, OSError) as error:
        sys.exit(f'{args.command}: {error}')


if __name__ == '__main__':
    main()
