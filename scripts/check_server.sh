#!/usr/bin/env bash
# Asks a running `gmflow serve` what its own description allows, and more (schemathesis), and uses it with OpenAI's client.
#
#     scripts/check_server.sh [target/release/gmflow]
#
# Installs what it needs into target/server-check. Takes about a minute.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
gmflow=${1:-$target/release/gmflow}
venv=$(realpath -m "$target/server-check")
[ -x "$gmflow" ] || { echo "there is no $gmflow; cargo build --release makes it" >&2; exit 1; }

if ! python3 -c "import venv, ensurepip" 2>/dev/null; then
    apt-get update -qq && apt-get install -y -qq python3 python3-venv
fi
if ! "$venv/bin/python" -c "import openai, schemathesis" 2>/dev/null; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install -q schemathesis==4.32.5 openai==3.57.0
fi

said=$(mktemp)
# Small limits, so that no request of the test takes long.
"$gmflow" serve models/mnist --bind 127.0.0.1:0 --max-samples 64 --max-steps 40 >"$said" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$said"' EXIT
for _ in $(seq 100); do
    grep -q '^http' "$said" && break
    sleep 0.1
done
url=$(head -1 "$said")
for _ in $(seq 100); do
    "$venv/bin/python" -c "import urllib.request; urllib.request.urlopen('$url/readyz')" 2>/dev/null && break
    sleep 0.1
done

"$venv/bin/python" scripts/check_server.py "$url"
# It keeps a cache where it is started.
(cd "$venv" && bin/schemathesis run "$url/openapi.json" --phases examples,coverage,fuzzing,stateful --max-examples 25 --seed 1 \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --request-timeout 60 --suppress-health-check all --warnings off --no-color)
echo "the server still answers: $("$venv/bin/python" -c "import urllib.request as u; print(u.urlopen('$url/readyz').read().decode())")"
kill "$server"
wait "$server"
