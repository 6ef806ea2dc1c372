#!/bin/sh
# Runs the benchmarks in a lab of their own, which ends whatever happens. The arguments are those of `python -m bench`.
# BENCH_JSON names the file for the figures; LAB_BENCH_STATE another folder for the lab.
set -u
cd "$(dirname "$0")/.." || exit 1
python=.venv/bin/python
state=${LAB_BENCH_STATE:-.lab-bench}

trap '"$python" -m lab --state "$state" down' EXIT
trap 'exit 130' INT TERM HUP
"$python" -m lab --state "$state" up &&
    "$python" -m lab --state "$state" exec -- "$python" -m bench --json "${BENCH_JSON:-bench.json}" "$@"
