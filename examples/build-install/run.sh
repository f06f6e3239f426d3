#!/bin/sh
# Pattern 402: a build environment in an image; running it installs the result on the host.
. "$(dirname "$0")/../lib.sh"
on_finish image dwarf_therapist
mkdir "$scratch/sbin"

say "Build the program with its toolchain inside the image"
show build -q -t dwarf_therapist "$here"
say "Run it to install on the host"
show run --rm -v "$scratch/sbin:/mnt" -it dwarf_therapist
ls -l "$scratch/sbin"
"$scratch/sbin/dwarf_therapist" | grep -F "How are you today, $(uname -n)?" || fail "the installed program does not run on the host"

say "The same as a task"
rm "$scratch/sbin/dwarf_therapist"
export SBIN="$scratch/sbin"
cd "$here"
show task run install
"$scratch/sbin/dwarf_therapist" | grep -qF "How are you today, $(uname -n)?" || fail "the installed program does not run on the host"
echo "build-install: ok"
