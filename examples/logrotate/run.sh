#!/bin/sh
# Pattern 301: log rotation as a container, generic: it finds the logs of any container through its volumes.
. "$(dirname "$0")/../lib.sh"
for image in logrotate web-server; do on_finish image $image; done
on_finish container web

say "A web server that knows nothing of log rotation, and a container that knows nothing else"
show build -q -t web-server -f "$here/Dockerfile.web" "$here"
show build -q -t logrotate "$here"
show run -d --name web -l logs=rotate web-server
# Asks the server for a page, from a container that shares its network.
ask() { cauldron run --rm --network container:web --entrypoint bash logrotate -c "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /$1 HTTP/1.0\r\n\r\n' >&3; cat <&3" | grep -q '^HTTP/1.1'; }
until_ok 30 ask warm-up
for page in one two three; do ask "$page"; done

say "Rotate"
show run --volumes-from web --rm -it logrotate
ask four

show exec web sh -c 'wc -l /var/log/nginx/access.log /var/log/nginx/access.log.1'
for page in one two three; do cauldron exec web grep -q "GET /$page " /var/log/nginx/access.log.1 || fail "line $page was lost"; done
cauldron exec web grep -q 'GET /four ' /var/log/nginx/access.log || fail "the server does not write to the new file"
if cauldron exec web grep -q 'GET /one ' /var/log/nginx/access.log; then fail "the file was not truncated"; fi

say "The same as a task, for every container with the label"
ask five
cd "$here"
show task run logrotate
cauldron exec web grep -q 'GET /five ' /var/log/nginx/access.log.1 || fail "line five was lost"
show task history logrotate
echo "logrotate: ok"
