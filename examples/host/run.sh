#!/bin/sh
# Pattern 502: containers that manage and watch their host.
. "$(dirname "$0")/../lib.sh"
on_finish image sysctl-tools
before=$(cat /proc/sys/vm/swappiness)
restore() { echo "$before" > /proc/sys/vm/swappiness; }
trap 'status=$?; restore; (exit $status); finish' EXIT

printf 'FROM debian:bookworm\nRUN apt-get update && apt-get install -y --no-install-recommends procps && rm -rf /var/lib/apt/lists/*\n' > "$scratch/Dockerfile"
show build -q -t sysctl-tools "$scratch"

say "An ordinary container may read the host's swappiness, not write it"
show run --rm sysctl-tools sh -c "cat /proc/sys/vm/swappiness"
if cauldron run --rm sysctl-tools sysctl -w vm.swappiness=65 >/dev/null 2>&1; then fail "an ordinary container changed the host"; fi
say "A privileged one manages the host"
show run --rm --privileged -it sysctl-tools sysctl -w vm.swappiness=65
[ "$(cat /proc/sys/vm/swappiness)" = 65 ] || fail "the host's value did not change"

say "The host's mount points, seen from inside"
cauldron run --rm --privileged -v /proc/mounts:/srv/mounts:ro -it sysctl-tools sh -c "cat /srv/mounts" > "$scratch/inside"
head -n 3 "$scratch/inside"
awk '{print $2}' /proc/mounts | sort -u > "$scratch/outside"
awk '{print $2}' "$scratch/inside" | sort -u | cmp - "$scratch/outside" || fail "these are not the host's mounts"

say "The same as tasks, with a history"
cd "$here"
export SWAPPINESS=66
show task run swappiness
[ "$(cat /proc/sys/vm/swappiness)" = 66 ] || fail "the host's value did not change"
cauldron task run mounts > "$scratch/watched"
awk '{print $2}' "$scratch/watched" | sort -u | cmp - "$scratch/outside" || fail "these are not the host's mounts"
show task history
echo "host: ok"
