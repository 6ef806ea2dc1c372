#!/bin/sh
# Runs the faults on the lab's real parts, in a lab of their own, which ends whatever happens. The arguments are
# pytest's. SLICE=i/n runs one of n parts; what has passed for this version of the code is not run again (the file that
# RESULTS names remembers it, with the figures). FULL_TIME=1: faults last minutes, as long as they are claimed to be
# outlived. LAB_FAULTS_STATE names another folder for the lab, KEEP_LAB=1 leaves it running.
set -u
cd "$(dirname "$0")/.." || exit 1
python=.venv/bin/python
state=${LAB_FAULTS_STATE:-.lab-faults-real}
RESULTS=${RESULTS:-.faults-real.json}
export RESULTS
NO_TESTS=5

[ -n "${KEEP_LAB:-}" ] || trap '"$python" -m lab --state "$state" down' EXIT
trap 'exit 130' INT TERM HUP
"$python" -m lab --state "$state" up || exit 1
"$python" -m lab --state "$state" exec -- "$python" -m pytest --durations=10 tests/faults_real "$@"
status=$?
# All of it has passed before.
[ "$status" -ne "$NO_TESTS" ] || status=0
exit "$status"
