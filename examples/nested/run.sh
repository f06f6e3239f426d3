#!/bin/sh
# Pattern 501: a container that builds an image, saved to the host's disk and loaded there; no registry involved.
. "$(dirname "$0")/../lib.sh"
for image in docker_build my_image; do on_finish image $image; done

mkdir -p "$scratch/context/inner" "$scratch/images" "$scratch/rootfs/bin"
cp "$here/Dockerfile" "$scratch/context"
cp "$CAULDRON" "$scratch/context/cauldron"
busybox=$(command -v busybox) || fail "install busybox-static first"
cp "$busybox" "$scratch/rootfs/bin/busybox"
for tool in sh cat echo mkdir; do ln -s busybox "$scratch/rootfs/bin/$tool"; done
tar -C "$scratch/rootfs" -cf "$scratch/context/inner/rootfs.tar" .
printf 'FROM base\nRUN mkdir /site && echo "static code" > /site/index\nCMD ["cat", "/site/index"]\n' > "$scratch/context/inner/Dockerfile"

say "An image with the engine, the build tools and the code in it"
show build -q -t docker_build "$scratch/context"
say "Inside: build, save. Outside: load, run"
show run --privileged -v "$scratch/images:/tmp" --rm -it docker_build
show load -i "$scratch/images/my_image.tar"
output=$(cauldron run --rm my_image)
echo "$output"
[ "$output" = "static code" ] || fail "the image that was built inside does not run outside"

say "The same as a task"
rm "$scratch/images/my_image.tar"
export IMAGES="$scratch/images"
cd "$here"
show task run build
show load -i "$scratch/images/my_image.tar"
echo "nested: ok"
