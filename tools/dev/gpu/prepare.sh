#!/usr/bin/env bash
# Collect wheels, weights and images, at most 60 MiB in all, for tools/dev/gpu/run.sh on a machine without network that has
# Python 3.12, torch for CUDA, transformers, timm, opencv and pytest, but no mm packages.
#   tools/dev/gpu/prepare.sh DATA [OUT]
# DATA is a folder with deit_tiny_mmseg.pth and kvasir_seg_352/; OUT is .gpu by default, which git ignores. To check the
# wheels, the script installs them into a temporary Python 3.12, or compares their tags if there is no Python 3.12.
set -euo pipefail
cd "$(dirname "$0")/../../.."
data=${1:?usage: tools/dev/gpu/prepare.sh DATA [OUT]} out=${2:-.gpu}
pairs=200 most=$((60 * 1024))  # KiB

stacks=(onedl-mmcv onedl-mmengine onedl-mmsegmentation onedl-mmpretrain)
# Their dependencies that are missing on such a machine; constraints.txt pins some of them.
others=(pysodmetrics segment-anything addict yapf platformdirs termcolor prettytable ftfy wcwidth mat4py modelindex
    model-index ordered-set lazy-importer importlib-metadata click)

[[ -f $data/deit_tiny_mmseg.pth && -d $data/kvasir_seg_352 ]] || {
    echo "$data has no deit_tiny_mmseg.pth or no kvasir_seg_352/; name the folder that holds both" >&2
    exit 1
}
mkdir -p "$out/wheels" "$out/data/kvasir_seg_352"
# The stacks come as sources. Building without dependencies avoids a download of torch.
rm -f "$out"/wheels/*.whl
python3 -m pip wheel --quiet --no-deps -c constraints.txt -w "$out/wheels" "${stacks[@]}" "${others[@]}"

cp "$data/deit_tiny_mmseg.pth" "$out/data/"
for part in train val; do
    if [[ $part == train ]]; then count=$((pairs * 4 / 5)); else count=$((pairs / 5)); fi
    mkdir -p "$out/data/kvasir_seg_352/"{images,annotations}/"$part"
    head -n "$count" "$data/kvasir_seg_352/$part.txt" >"$out/data/kvasir_seg_352/$part.txt"
    while read -r name; do
        cp "$data/kvasir_seg_352/images/$part/$name".* "$out/data/kvasir_seg_352/images/$part/"
        cp "$data/kvasir_seg_352/annotations/$part/$name".* "$out/data/kvasir_seg_352/annotations/$part/"
    done <"$out/data/kvasir_seg_352/$part.txt"
done

python=$(command -v python3.12 || uv python find 3.12 2>/dev/null || true)
if [[ -n $python ]] && "$python" -c 'import venv' 2>/dev/null; then
    trial=$(mktemp -d)
    trap 'rm -rf "$trial"' EXIT
    "$python" -m venv "$trial"
    "$trial/bin/pip" install --quiet --no-index --no-deps "$out"/wheels/*.whl
    echo "$(ls "$out"/wheels/*.whl | wc -l) wheels install under $("$trial/bin/python" --version)"
else
    wrong=$(ls "$out/wheels" | grep -v -e '-none-any\.whl$' -e '-cp3[0-9]*-abi3-manylinux.*x86_64\.whl$' || true)
    [[ -z $wrong ]] || { echo "not for Python 3.12: $wrong" >&2; exit 1; }
    echo "no Python 3.12 here; the tags of all wheels allow it"
fi
size=$(du -sk "$out" | cut -f1)
((size <= most)) || { echo "$out takes $size KiB, more than $most" >&2; exit 1; }
echo "$out is ready: $((size / 1024)) MiB"
