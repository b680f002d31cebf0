#!/usr/bin/env bash
# Check and measure mmgps on a GPU within eight minutes, or three with --quick: the tests marked gpu, then step times,
# memory, routes, selection and deltas. Uses the files from tools/dev/gpu/prepare.sh in .gpu and installs nothing into the
# machine's Python. Results: results.json, results.md and log.txt in work_dirs/gpu, or --out.
#   tools/dev/gpu/run.sh [--quick] [--only WORD ...] [--out DIR]
#   tools/dev/gpu/run.sh --device cpu        all stages at toy size, on any machine with mmgps installed
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=${PYTHON:-python3}
wheels=(.gpu/wheels/*.whl)
if [[ -f ${wheels[0]} ]] && ! "$python" -c 'import mmseg' 2>/dev/null; then
    site=${TMPDIR:-/tmp}/mmgps-gpu-site
    rm -rf "$site"
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "${wheels[@]}"
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
exec "$python" tools/dev/gpu/stages.py "$@"
