#!/bin/sh
# docker-compose 1.29 against the engine at DOCKER_HOST: a project goes up, is looked at, changed, scaled and taken down.
set -eu
cd "$1/compose"
export COMPOSE_PROJECT_NAME=clients COMPOSE_INTERACTIVE_NO_CLI=1
said=$(mktemp)
trap 'docker-compose down -v --remove-orphans >/dev/null 2>&1; docker-compose -f old.yml down -v >/dev/null 2>&1; rm -f "$said"' EXIT
fail() { echo "FAILED: $*" >&2; cat "$said" >&2; exit 1; }
compose() { docker-compose "$@" >"$said" 2>&1 || fail "docker-compose $*"; }
says() { grep -q -- "$1" "$said" || fail "no \"$1\""; }

compose config -q
compose build
compose up -d
compose ps
says "clients_web_1 .*Up.*127.0.0.1:[0-9]*->80/tcp"
says "clients_worker_1 .*Up"
compose logs web worker
says "web_1 .*started"
says "worker_1 .*I am worker"
compose exec -T worker cat /pages/index.html
says served
compose exec -T worker wget -qO- http://web/
says served
compose exec -T worker wget -qO- http://clients_web_1/
says served
docker-compose exec -T worker sh -c 'exit 5' || [ $? = 5 ] || fail "an exit code"
compose port web 80
says "127.0.0.1:[0-9]"
env -u COMPOSE_INTERACTIVE_NO_CLI docker-compose run --rm -T worker sh -c 'echo one-off; wget -qO- http://web/' >"$said" 2>&1 || fail run
says one-off
says served
compose top web
says httpd
# Nothing changes: nothing is made again.
compose up -d
says "web_1 is up-to-date\|web is up-to-date\|clients_web_1 is up-to-date"
# An anonymous volume goes over to the container that takes the place of another.
docker-compose exec -T web sh -c 'echo kept > /anonymous/file'
compose up -d --force-recreate web
compose exec -T web cat /anonymous/file
says kept
WHO=changed docker-compose up -d --build >"$said" 2>&1 || fail "up --build"
compose logs worker
says "I am changed"
compose up -d --scale worker=3
compose ps -q worker
[ "$(wc -l < "$said")" = 3 ] || fail "three workers"
compose up -d --scale worker=1
compose pause web
compose ps
says Paused
compose unpause web
compose restart -t 0 web
compose stop -t 0
compose ps
says "Exit"
compose start
compose kill worker
compose rm -f worker
compose down -v
says "Removing network clients_front"
says "Removing volume clients_pages"
compose -f old.yml up -d
compose -f old.yml ps
says "clients_two_1 .*Up"
compose -f old.yml down
[ -z "$(docker-compose ps -q)" ] || fail "something is left"
echo compose ok
