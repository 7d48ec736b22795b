#!/bin/sh
# Counts the instructions that the layer itself spends on one request, and fails above a budget.
#
# Counted with callgrind in a release build: layer - bare service - SHA-256 of the key. The hash is
# subtracted because valgrind hides the processor's SHA instructions, so that it takes ten times
# the instructions that it takes in truth. Each count is the difference of two runs of different
# length, so that start-up cancels out. `unknown` includes the making of its answer, a status and
# JSON. A lookup includes the making of the digest that it asks for. The limit layer's own count is
# what it adds to the auth layer: both - auth, with the headers that tell what is left, and with the
# giving back of what a session held. `refused` includes the making of its answer.
#
# The budgets are what was measured with Rust 1.95 on x86-64, plus 5 %. Instructions depend on the
# compiler a little: if a new one needs more, raise the budget; if a change of ours does, look why.
set -eu
cd "$(dirname "$0")/.."

# case: budget
budgets="
header 4620
query 6560
subprotocol 6110
lone-entry 7230
unknown 10730
"
limit_budgets="
request 10320
session 13030
token 12560
refused 9770
"
few=100
many=1100

command -v valgrind >/dev/null || { echo "valgrind is needed" >&2; exit 1; }

build() {
    cargo bench --bench "$1" --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}
alone=$(build instructions)
limited=$(build limit_instructions)
program=$alone

# The instructions of a whole run.
run() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$@" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

# The instructions of one repetition.
each() {
    echo $((($(run "$@" $many) - $(run "$@" $few)) / (many - few)))
}

hash=$(each hash)
echo "SHA-256 of the key, without SHA instructions: $hash"
printf '%-12s %8s %8s %8s %8s\n' case bare layer own budget
over=0
while read -r case budget; do
    [ -n "$case" ] || continue
    bare=$(each bare "$case")
    layer=$(each layer "$case")
    own=$((layer - bare - hash))
    printf '%-12s %8d %8d %8d %8d\n' "$case" "$bare" "$layer" "$own" "$budget"
    [ "$own" -le "$budget" ] || over=1
done <<EOF
$budgets
EOF

program=$limited
printf '\n%-12s %8s %8s %8s %8s\n' limit auth both own budget
while read -r case budget; do
    [ -n "$case" ] || continue
    auth=$(each auth "$case")
    both=$(each both "$case")
    own=$((both - auth))
    printf '%-12s %8d %8d %8d %8d\n' "$case" "$auth" "$both" "$own" "$budget"
    [ "$own" -le "$budget" ] || over=1
done <<EOF
$limit_budgets
EOF
program=$alone

# A lookup in memory, random hits: as many instructions with many keys as with a thousand, but for
# 5 %. MOST_KEYS=1000000 asks for more of them, which takes minutes. Counted in the function alone,
# of which filling the store is no part. A seeded hash lets it differ a little from run to run.
look_up() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        --collect-atstart=no '--toggle-collect=*look_up*' "$program" lookup "$1" 10000 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
first=
for keys in 1000 100000 ${MOST_KEYS:-}; do
    each=$(($(look_up "$keys") / 10000))
    echo "lookup among $keys: $each"
    first=${first:-$each}
    [ "$each" -gt 0 ] && [ $((each * 100)) -le $((first * 105)) ] || over=1
done
[ $over = 0 ] || { echo "over budget" >&2; exit 1; }
