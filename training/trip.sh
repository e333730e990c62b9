#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Trains, exports and measures in one call, for a GPU that is lent by the hour:
#   sh training/trip.sh CONFIG MINUTES TEST OUT [options of training.train, such as --packed SET --init WEIGHTS]
# TEST is a packed set; a SET with deeper scenes than CONFIG draws needs --leave-out-deeper, too. What is worth bringing back comes to
# lie in OUT, no file over 16 MB; 1 where a file is larger and stays in OUT.run, where the run with its checkpoint lies; the same
# command goes on there. Bias, temperatures and so on are those of --init.
set -eu
if [ $# -lt 4 ]; then
    sed -n '3,7s/^# //p' "$0" >&2
    exit 2
fi
config=$1 minutes=$2 test=$3 out=${4%/}
shift 4
run=$out.run
mkdir -p "$out"
if [ -e "$run/checkpoint.pt" ]; then
    set -- --resume "$@"
fi
python -m training.train "$config" --minutes "$minutes" --out "$run" "$@"
python -m training.export "$run" "$config" --out "$run/weights.safetensors"
left=0
bring() {
    for file in "$@"; do
        [ -e "$file" ] || continue
        if [ -n "$(find "$file" -size +16000000c)" ]; then
            echo "left in $run: ${file##*/} has more than 16 MB" >&2
            left=1
        else
            cp "$file" "$out"
        fi
    done
}
bring "$run/weights.safetensors" "$run/log.jsonl" "$run"/*.png # before it measures, should that fail
rm -rf "$run/sheets"
python -m training.evaluate --model "$run/weights.safetensors" --set "$test" --out "$run/figures.json" --sheets "$run/sheets" \
    > "$run/figures.md"
bring "$run"/figures.* "$run"/sheets/*
exit $left
