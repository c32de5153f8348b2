#!/usr/bin/env bash
# Drives the page in a browser. Needs the program in release mode, Node and Chromium. Installs Node and Chromium where
# it can, and the npm packages. Without them it says so and succeeds; with CI=true it fails.
set -euo pipefail
cd "$(dirname "$0")"

missing() {
    echo "THE PAGE IS NOT TESTED: $1" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
}
install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

target=${CARGO_TARGET_DIR:-../../../../target}
GMFLOW_BIN=$(realpath -m "${GMFLOW_BIN:-$target/release/gmflow}")
export GMFLOW_BIN
[ -x "$GMFLOW_BIN" ] || missing "there is no $GMFLOW_BIN; cargo build --release makes it"
command -v npm >/dev/null || install nodejs npm || missing "there is no npm"
command -v chromium >/dev/null || install chromium || missing "there is no chromium"
npm ci --loglevel=error --no-audit --no-fund || missing "npm could not install playwright-core and axe-core"
exec node --test --test-concurrency=1 ./*.test.mjs
