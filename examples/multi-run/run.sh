#!/bin/sh
# Pattern 401: an image built twice. The first run of it generates its own configuration, the second build bakes that in.
. "$(dirname "$0")/../lib.sh"
on_finish image dns-auth
on_finish container dns

cp "$here/Dockerfile" "$here/generate_named.rb" "$here/compose.yaml" "$scratch"
cd "$scratch"
echo '# dummy' > named.conf
echo '; dummy' > zone.db

say "Build once, with a dummy configuration"
show build -q -t dns-auth .
say "Run it to generate the real one"
echo '$ cauldron run --rm -v "$(pwd):/srv" -it dns-auth /srv/generate_named.rb > named.conf'
cauldron run --rm -v "$(pwd):/srv" -it dns-auth /srv/generate_named.rb > generated.conf
mv generated.conf named.conf
cat named.conf
if grep -q "$(printf '\r')" named.conf; then fail "carriage returns in the generated file"; fi
say "Build again: the image configured itself"
show build -q -t dns-auth .
show run --rm dns-auth named-checkconf /etc/bind/named.conf
show run -d --name dns dns-auth
until_ok 30 cauldron exec dns dig +short +time=1 +tries=1 @127.0.0.1 generated.example.test
answer=$(cauldron exec dns dig +short @127.0.0.1 generated.example.test)
echo "generated.example.test is $answer"
[ "$answer" = 192.0.2.42 ] || fail "the server does not know the generated record"

say "The same, declared"
on_finish container multi-run-example-dns-1
cauldron rm --force dns > /dev/null
echo '# dummy' > named.conf
show task run generate
show up -d --build
until_ok 30 cauldron exec multi-run-example-dns-1 dig +short +time=1 +tries=1 @127.0.0.1 generated.example.test
show down
echo "multi-run: ok"
