#!/bin/sh
# The docker command line against the engine at DOCKER_HOST, which has the image busybox.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
is() { [ "$1" = "$2" ] || fail "want \"$2\", got \"$1\""; }

is "$(docker run --rm busybox echo hello)" hello
is "$(echo typed | docker run --rm -i busybox cat)" typed
is "$(docker run --rm -e A=b -w /tmp -u 5:6 busybox sh -c 'echo $A; pwd; id -u; id -g' | tr '\n' ' ')" "b /tmp 5 6 "
docker run --rm busybox sh -c 'exit 9' && fail "an exit code" || is $? 9
docker run --rm busybox nosuch >"$work/err" 2>&1 && fail "nosuch ran" || is $? 127
docker run -d --name box -p 127.0.0.1::80 -l kind=test --restart on-failure:1 busybox sh -c 'echo log; sleep 1000' >"$work/id"
is "$(docker ps --no-trunc -q)" "$(cat "$work/id")"
is "$(docker ps --filter label=kind=test --format '{{.Names}} {{.Image}}')" "box busybox"
is "$(docker inspect -f '{{.State.Running}} {{.HostConfig.RestartPolicy.Name}} {{.Config.Labels.kind}}' box)" "true on-failure test"
docker port box 80 | grep -q '^127.0.0.1:[0-9]' || fail port
is "$(docker logs box)" log
is "$(docker exec box echo one)" one
is "$(echo in | docker exec -i box cat)" in
docker exec box sh -c 'exit 3' && fail "an exit code" || is $? 3
echo content > "$work/file"
docker cp -q "$work/file" box:/tmp/file 2>/dev/null || docker cp "$work/file" box:/tmp/file
is "$(docker exec box cat /tmp/file)" content
is "$(docker cp box:/tmp/file - | tar -xO)" content
docker diff box | grep -q '^A /tmp/file' || fail diff
docker top box | grep -q 'sleep 1000' || fail top
docker stats --no-stream --format '{{.Name}} {{.PIDs}}' box | grep -q '^box [1-9]' || fail stats
docker pause box >/dev/null
is "$(docker ps --filter status=paused -q --no-trunc)" "$(cat "$work/id")"
docker unpause box >/dev/null
docker update --restart no box >/dev/null
docker rename box other
docker commit -m remark -c 'CMD ["cat", "/tmp/file"]' other made:1 >/dev/null
is "$(docker run --rm made:1)" content
docker rm other >"$work/err" 2>&1 && fail "a running container went"
docker stop -t 0 other >/dev/null
docker start other >/dev/null
docker kill other >/dev/null
is "$(docker wait other)" 137
docker export other | tar -t | grep -q '^tmp/file$' || fail export
docker rm other >/dev/null

docker tag made:1 127.0.0.1:5000/made:1
docker push -q 127.0.0.1:5000/made:1 >/dev/null
docker rmi 127.0.0.1:5000/made:1 made:1 >/dev/null
docker pull -q 127.0.0.1:5000/made:1 >/dev/null
docker save -o "$work/saved.tar" 127.0.0.1:5000/made:1
docker rmi 127.0.0.1:5000/made:1 >/dev/null
docker load -i "$work/saved.tar" | grep -q 'Loaded image: 127.0.0.1:5000/made:1' || fail load
docker history -q 127.0.0.1:5000/made:1 | grep -q . || fail history
docker rmi 127.0.0.1:5000/made:1 >/dev/null
docker pull 127.0.0.1:5000/nosuch:1 >"$work/err" 2>&1 && fail "nosuch was pulled"

mkdir "$work/context"
printf 'FROM busybox AS one\nARG WHO\nCOPY data /data\nRUN echo $WHO >> /data\nFROM one\nCMD ["cat", "/data"]\n' > "$work/context/Dockerfile"
echo data > "$work/context/data"
docker build -q --build-arg WHO=me -t built:1 "$work/context" >/dev/null
is "$(docker run --rm built:1 | tr '\n' ' ')" "data me "
docker build "$work/context" >"$work/out" 2>&1 || fail build
grep -q 'Using cache' "$work/out" || fail "the build's cache"
printf 'FROM busybox\nRUN exit 4\n' | docker build - >"$work/out" 2>&1 && fail "a failed build"
grep -q 'returned a non-zero code: 4' "$work/out" || fail "why the build failed"

docker volume create --label a=b kept >/dev/null
docker run --rm -v kept:/v busybox sh -c 'echo kept > /v/file'
is "$(docker run --rm -v kept:/v:ro busybox cat /v/file)" kept
is "$(docker volume ls -q --filter label=a=b)" kept
docker volume rm kept >/dev/null
docker network create --subnet 10.198.0.0/24 net >/dev/null
docker run -d --name server --network net --network-alias site --ip 10.198.0.9 busybox sh -c 'echo page > /index.html; httpd -f -h /' >/dev/null
is "$(docker run --rm --network net busybox sh -c 'until wget -qO- http://site/ 2>/dev/null; do :; done')" page
is "$(docker network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' net)" "server 10.198.0.9/24"
docker network disconnect net server
docker network connect net server
docker rm -f server >/dev/null
docker network rm net >/dev/null

docker create --name still busybox true >/dev/null
is "$(docker ps -a --filter status=created --format '{{.Names}}')" still
docker start -a still
docker container prune -f | grep -q 'Total reclaimed space' || fail prune
docker images -q nosuch | grep -q . && fail "nosuch is listed"
docker system df | grep -q 'Build Cache' || fail df
docker info --format '{{.OSType}} {{.Swarm.LocalNodeState}}' | grep -q '^linux inactive$' || fail info
docker service ls >"$work/err" 2>&1 && fail "services"
grep -q 'not a swarm manager' "$work/err" || fail "why there are no services"
docker rmi built:1 >/dev/null
docker image prune -f >/dev/null
echo docker ok
