#!/usr/bin/env bash
# Runs every test there is. Needs Rust, and Debian or Ubuntu for whatever else is missing.
#
#     CHROMIUM=/path/to/chrome bash tests/run.sh      # with a browser of one's own
set -euo pipefail
cd "$(dirname "$0")/.."

main() {
    need_rust
    need cc build-essential
    need curl curl
    need node nodejs
    need npm npm
    need python3 python3
    need valgrind valgrind
    need_cargo_tool deny
    need_cargo_tool fuzz
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
    need_browser
    read_crate

    step 'formatting'             cargo fmt --check
    step 'lints'                  cargo clippy --all-targets --all-features -- -D warnings
    for feature in '' "${features[@]}"; do
        step "lints, with ${feature:-no feature} alone" \
            cargo clippy --lib --no-default-features --features "$feature" -- -D warnings
    done
    step 'at most 25 crates'      few_crates 25
    step 'documentation'          env RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --all-features
    step 'types in the public API' public_types
    step 'licences, duplicates, sources' cargo deny --log-level error check bans licenses sources
    step 'oldest dependencies'    oldest_dependencies
    step 'tests'                  cargo test --all-features
    step 'a million requests'     env PROPERTY_CASES=1000000 cargo test --test properties
    step 'locked sessions by chance' env PROPERTY_CASES=200000 cargo test --release --test lock
    step 'tokens by chance'       env PROPERTY_CASES=100000 cargo test --test mint never_exceeds
    step 'a million keys'         env ISSUED_KEYS=1000000 cargo test --release --test weak_keys
    step 'memory of a million keys' env INDEXED_KEYS=1000000 \
        cargo test --release --test key_memory
    step 'mint races and caps'    env MINT_ROUNDS=100000 MINTS_PAST_CAP=10000 \
        cargo test --release --test mint -- races caps
    step 'a million sessions'     env REPLAY_TOKENS=1000 cargo test --test replay
    step 'tenants'                env TENANT_STEPS=100000 cargo test --release --test tenants
    step 'revocation races in memory' env RACES=80000 cargo test --release --test revocations whoever
    step 'figures of a store in a file' env FAMILIES=100 HELD_LOOKUPS=10000 RACES=20000 \
        SQLITE_MINT_ROUNDS=2500 SQLITE_REPLAY_TOKENS=1000 STOLEN_DIGESTS=10000 \
        cargo test --release --test sqlite -- revoked races replay peppers
    step 'instructions'           sh tests/instructions.sh
    step 'fuzzing'                sh fuzz/run.sh 5
    step 'examples'               cargo build --examples
    step 'clients for Node'       npm ci --prefix tests/clients
    step 'clients for Python'     install_python_clients
    export GATEWAY="$target/debug/examples/gateway" PROXY="$target/debug/examples/proxy"
    export KEYS="$target/debug/examples/keys"
    step 'Chromium, ws, fetch, SDKs of OpenAI, xAI, Decart' node_clients
    step 'openai, agents SDK, Decart, httpx, requests, websockets' python_clients

    printf '\nEverything passed, in %s s.\n' "$SECONDS"
}

# step NAME COMMAND...: announces it, runs it, tells how long it took.
step() {
    local begin=$SECONDS
    doing=$1
    shift
    printf '\n==> %s\n' "$doing"
    "$@" </dev/null
    printf '    %s s\n' "$((SECONDS - begin))"
}

doing=preparations
trap '[ $? = 0 ] || printf "\nFAILED: %s\n" "$doing" >&2' EXIT

fail() {
    printf 'tests/run.sh: %s\n' "$*" >&2
    exit 1
}

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null || install "$2"
    command -v "$1" >/dev/null || fail "$1 is missing even with the package $2 installed."
}

install() {
    local sudo=()
    command -v apt-get >/dev/null || fail "$1 is missing, and so is apt-get to install it with."
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "$1 is missing; run 'apt-get install $1' as root."
        sudo=(sudo)
    fi
    printf '==> installing %s\n' "$1"
    "${sudo[@]}" apt-get update -qq </dev/null
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends "$1" </dev/null >/dev/null ||
        fail "apt-get cannot install $1; install it in another way."
}

need_rust() {
    command -v cargo >/dev/null || fail 'cargo is missing; install Rust first.'
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

# need_cargo_tool NAME: the subcommand `cargo NAME`.
need_cargo_tool() {
    command -v "cargo-$1" >/dev/null && return
    printf '==> installing cargo-%s\n' "$1"
    cargo install --quiet --locked "cargo-$1" </dev/null || fail "cargo cannot install cargo-$1."
}

need_browser() {
    local names=("${CHROMIUM:-chromium}") name
    [ -n "${CHROMIUM:-}" ] || names+=(google-chrome chromium-browser)
    for name in "${names[@]}"; do
        CHROMIUM=$(command -v "$name") && break
    done
    if [ -z "$CHROMIUM" ]; then
        need "${names[0]}" chromium
        CHROMIUM=$(command -v "${names[0]}")
    fi
    "$CHROMIUM" --version || fail "$CHROMIUM does not start; name another browser in CHROMIUM."
    export CHROMIUM
}

# Asked of cargo, so that a new feature or another target folder cannot be forgotten.
read_crate() {
    local metadata
    metadata=$(cargo metadata --no-deps --format-version 1)
    ask() { python3 -c "import json, sys; said = json.load(sys.stdin); $1" <<<"$metadata"; }
    target=$(ask "print(said['target_directory'])")
    name=$(ask "print(said['packages'][0]['name'])")
    mapfile -t features < <(ask "print(*said['packages'][0]['features'], sep='\n')" | grep -vx default)
    [ "${#features[@]}" -gt 0 ] || fail 'cargo names no features.'
    venv=$target/clients/venv
}

# The crate promises to stay light without its default features.
few_crates() {
    local crates
    crates=$(cargo tree --no-default-features -e normal --prefix none |
        sed '1d; s/ (.*//' | sort -u)
    xargs -n 6 -d '\n' <<<"$crates"
    [ "$(wc -l <<<"$crates")" -le "$1" ] || fail "more than $1 crates without default features."
}

# Types of 0.x crates in signatures would tie our versions to theirs. Rustdoc's JSON is not stable
# yet, hence the first line.
public_types() {
    RUSTC_BOOTSTRAP=1 cargo rustdoc --all-features --lib -- \
        -Z unstable-options --output-format json
    python3 tests/public_types.py "$target/doc/${name//-/_}.json"
}

# The lowest versions that Cargo.toml names must do. In a copy without dev-dependencies, whose
# needs are not our users'.
oldest_dependencies() {
    local copy
    copy=$(mktemp -d)
    cp -r src README.md "$copy"
    sed '/^\[dev-dependencies\]/,/^\[lints.rust\]/{/^\[lints.rust\]/!d}' Cargo.toml >"$copy/Cargo.toml"
    (
        cd "$copy"
        RUSTC_BOOTSTRAP=1 cargo -Z direct-minimal-versions generate-lockfile --quiet
        CARGO_TARGET_DIR=$target/oldest cargo check --all-features --quiet
    )
    rm -r "$copy"
}

install_python_clients() {
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r tests/clients/requirements.txt
    "$venv/bin/pip" list --format=freeze |
        grep -E '^(decart|httpx|openai|openai-agents|requests|websockets)='
}

node_clients() {
    bounded node --test --test-reporter=spec tests/clients/node/*.test.mjs
}

python_clients() {
    bounded "$venv/bin/python" -B -m pytest -q -p no:cacheprovider tests/clients/python
}

# Every wait in the tests has a deadline; this is for what nobody thought of.
bounded() {
    timeout --foreground --signal=INT --kill-after=10 600 "$@"
}

main "$@"
