#!/bin/sh
# Fuzzes every target for SECONDS seconds, the kept corpus first; fails at the first disagreement.
# What is found on the way goes to a folder of its own, so that the corpus stays as it is.
set -eu
seconds=${1:?how many seconds for each target}
cd "$(dirname "$0")"

# cargo-fuzz needs flags that only nightly takes openly; nothing else here does.
export RUSTC_BOOTSTRAP=1
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT

for target in authorization query offers handshake guard; do
    echo "fuzzing $target for $seconds s"
    mkdir "$found/$target"
    # Without `unsafe` in the crate, an address sanitizer has nothing to find and costs speed.
    cargo fuzz run --sanitizer none "$target" "$found/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=8192 -dict=words.dict -verbosity=0 -print_final_stats=1
done
