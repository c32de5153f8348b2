#!/usr/bin/env bash
# Makes what a release consists of: dist/gmflow-VERSION-TARGET.tar.gz with its SHA-256 and, if asked for, a container image.
#   scripts/release.sh [--target TRIPLE] [--container]
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "usage: scripts/release.sh [--target TRIPLE] [--container]" >&2
    exit 2
}

target=$(rustc -vV | sed -n 's/^host: //p')
container=no
while [ $# -gt 0 ]; do
    case "$1" in
        --target) [ $# -ge 2 ] || usage; target=$2; shift 2 ;;
        --container) container=yes; shift ;;
        *) usage ;;
    esac
done
engine=
if [ "$container" = yes ]; then
    # Found out before a build of many minutes.
    engine=$(command -v docker || command -v podman) || { echo "error: --container: needs docker or podman" >&2; exit 1; }
fi

host=$(rustc -vV | sed -n 's/^host: //p')
if [ "$target" = "$host" ]; then
    # Without --target, so that the build shares the target folder with development.
    cargo build --release --locked --workspace --bin gmflow
    binary=target/release/gmflow
else
    cargo build --release --locked --workspace --bin gmflow --target "$target"
    binary=target/$target/release/gmflow
fi
case "$target" in *windows*) binary=$binary.exe ;; esac

version=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"name":"gmflow-cli","version":"\([^"]*\)".*/\1/p')
[ -n "$version" ] || { echo "error: no version of gmflow-cli in cargo metadata" >&2; exit 1; }
name=gmflow-$version-$target
folder=dist/$name
rm -rf "$folder"
mkdir -p "$folder/completions"
cp "$binary" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$folder/"
cp -r configs models book "$folder/"
if "$binary" --version >/dev/null 2>&1; then
    for shell in bash zsh fish; do
        "$binary" completions "$shell" > "$folder/completions/gmflow.$shell"
    done
else
    # A program for another system.
    rmdir "$folder/completions"
fi
tar -C dist --sort=name --owner=0 --group=0 --numeric-owner -czf "dist/$name.tar.gz" "$name"
(cd dist && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
echo "dist/$name.tar.gz"

if [ "$container" = yes ]; then
    case "$target" in *-musl) base=scratch ;; *) base=debian:stable-slim ;; esac
    "$engine" build -f scripts/Containerfile --build-arg "BASE=$base" --build-arg "NAME=$name" -t "gmflow:$version" dist
    echo "gmflow:$version"
fi
