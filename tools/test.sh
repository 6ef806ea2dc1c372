#!/bin/sh
# Runs all tests, in three labs side by side: Hostler as a whole in two of them, half of its tests in each (they mostly
# wait), and everything else in the third (units, the lab itself, the driver's contract, the API), which breaks hosts of
# its own meanwhile. What one of them says is shown as it goes, what the others said at the end. All labs end whatever
# happens. The arguments are pytest's. KEEP_LAB=1 leaves the labs running; LAB_TEST_STATE names another folder for them.
# The last line is pytest's.
set -u
cd "$(dirname "$0")/.." || exit 1
python=.venv/bin/python
state=${LAB_TEST_STATE:-.lab-test}
NO_TESTS=5

lab() { "$python" -m lab --state "$@"; }

tests_of() { # LAB
    case $1 in
    parts) echo "tests/unit tests/integration --ignore=tests/integration/system" ;;
    odd) ls tests/integration/system/test_*.py | sed -n 'p;n' ;;
    even) ls tests/integration/system/test_*.py | sed -n 'n;p' ;;
    esac
}

end_lab() { # STATE
    [ -z "${KEEP_LAB:-}" ] || return 0
    if ! lab "$1" down >"$1.down.log" 2>&1; then
        cat "$1.down.log" >&2
        echo "test: the lab in $1 did not end in good order" >&2
        return 1
    fi
    rm -f "$1.down.log"
}

in_lab() { # LAB, pytest's arguments …
    of=$state-$1
    tests=$(tests_of "$1")
    shift
    # shellcheck disable=SC2086 # a list of words
    lab "$of" up && lab "$of" exec -- "$python" -m pytest --durations=15 --durations-min=10 $tests "$@"
    status=$?
    end_lab "$of" || status=1
    return "$status"
}

interrupted() {
    trap '' INT TERM HUP
    for process in ${odd:-} ${parts:-}; do kill "$process" 2>/dev/null; done
    for name in odd parts even; do end_lab "$state-$name"; done
    exit 130
}

trap interrupted INT TERM HUP

result=0
tested=
conclude() { # exit status of a pytest
    # A selection (-k …) may leave a lab without a test, but not all of them.
    [ "$1" -ne "$NO_TESTS" ] || return
    tested=yes
    [ "$1" -eq 0 ] || result=$1
}

in_lab odd "$@" >"$state-odd.log" 2>&1 &
odd=$!
in_lab parts "$@" >"$state-parts.log" 2>&1 &
parts=$!
in_lab even "$@"
conclude $?
wait "$odd"
conclude $?
wait "$parts"
conclude $?
for name in odd parts; do
    echo "test: in the lab $state-$name:"
    cat "$state-$name.log"
    rm -f "$state-$name.log"
done
[ -n "$tested" ] || exit "$NO_TESTS"
exit "$result"
