# Shared by the examples: finds the binary, makes private roots that vanish at the end, provides a Debian base.
# Set CAULDRON (the binary), CAULDRON_ROOT and CAULDRON_RUN_ROOT to use your own; then nothing but the example's own
# containers, volumes and images is removed at the end.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

if [ -z "${CAULDRON:-}" ]; then
    for candidate in "$top/target/x86_64-unknown-linux-musl/release/cauldron" "$top/target/x86_64-unknown-linux-musl/debug/cauldron"; do
        if [ -x "$candidate" ]; then CAULDRON=$candidate; break; fi
    done
    CAULDRON=${CAULDRON:-$(command -v cauldron)} || { echo "no cauldron binary: run 'make build' first" >&2; exit 1; }
fi
export CAULDRON
cauldron() { "$CAULDRON" "$@"; }

scratch=$(mktemp -d)
own_roots=
if [ -z "${CAULDRON_ROOT:-}" ]; then
    own_roots=yes
    export CAULDRON_ROOT="$scratch/root" CAULDRON_RUN_ROOT="$scratch/run"
fi
containers='' volumes='' images=''
# What the example leaves to `finish`: containers by name, volumes by name, images by tag.
on_finish() { case $1 in container) containers="$2 $containers" ;; volume) volumes="$2 $volumes" ;; image) images="$2 $images" ;; esac; }

finish() {
    status=$?
    trap - EXIT INT TERM
    for name in $containers; do cauldron rm --force --volumes "$name" >/dev/null 2>&1 || true; done
    for name in $volumes; do cauldron volume rm --force "$name" >/dev/null 2>&1 || true; done
    for name in $images; do cauldron rmi --force "$name" >/dev/null 2>&1 || true; done
    rm -rf "$scratch"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n== %s\n' "$*"; }
# Prints the command as a person would type it, then runs it.
show() { printf '$ cauldron %s\n' "$*"; cauldron "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
# Tries a command once a second, so many times at most.
until_ok() {
    tries=$1; shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "gave up waiting for: $*"
        sleep 1
    done
}

if ! cauldron image inspect debian:bookworm >/dev/null 2>&1; then
    say "A Debian base, from Debian's own archive: no registry involved"
    show image bootstrap debian:bookworm
fi
