#!/bin/bash
# Keeps the newest dumps, as many as it is told, and in any case the last one that was verified and all that are newer.
set -euo pipefail
cd /backups
verified=$(ls -t -- *.verified 2> /dev/null | head -n 1) || true
[ -n "$verified" ] || { echo "nothing was verified yet: nothing is removed" >&2; exit 1; }
verified=${verified%.verified}
ls -t -- *.sql | tail -n "+$(($1 + 1))" | while read -r dump; do
    [ "$dump" -nt "$verified" ] || [ "$dump" = "$verified" ] || { rm -f -- "$dump" "$dump.verified"; echo "removed $dump"; }
done
