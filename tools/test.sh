#!/bin/sh
# Runs all tests, in two labs side by side: Hostler as a whole in one, and everything else in the other (units, the lab
# itself, the driver's contract, the API), which breaks hosts of its own meanwhile. Both labs end whatever happens.
# The arguments are pytest's. KEEP_LAB=1 leaves the labs running; LAB_TEST_STATE names another folder for them. The
# last line is pytest's.
set -u
cd "$(dirname "$0")/.." || exit 1
python=.venv/bin/python
state=${LAB_TEST_STATE:-.lab-test}
parts=$state-parts
NO_TESTS=5

lab() { "$python" -m lab --state "$@"; }

end_lab() { # STATE
    [ -z "${KEEP_LAB:-}" ] || return 0
    if ! lab "$1" down >"$1.down.log" 2>&1; then
        cat "$1.down.log" >&2
        echo "test: the lab in $1 did not end in good order" >&2
        return 1
    fi
    rm -f "$1.down.log"
}

in_lab() { # STATE, pytest's arguments …
    of=$1
    shift
    lab "$of" up && lab "$of" exec -- "$python" -m pytest "$@"
    status=$?
    end_lab "$of" || status=1
    return "$status"
}

interrupted() {
    trap '' INT TERM HUP
    [ -z "${others:-}" ] || kill "$others" 2>/dev/null
    end_lab "$parts"
    end_lab "$state"
    exit 130
}

trap interrupted INT TERM HUP

in_lab "$parts" tests/unit tests/integration --ignore=tests/integration/system "$@" >"$parts.log" 2>&1 &
others=$!
in_lab "$state" tests/integration/system "$@"
system=$?
wait "$others"
rest=$?
echo "test: everything but the system tests:"
cat "$parts.log"
rm -f "$parts.log"
# A selection (-k …) may leave one of the two without a test.
[ "$system" -ne "$NO_TESTS" ] || [ "$rest" -eq "$NO_TESTS" ] || system=0
[ "$rest" -ne "$NO_TESTS" ] || [ "$system" -ne 0 ] || rest=0
[ "$system" -eq 0 ] || exit "$system"
exit "$rest"
