#!/usr/bin/ruby
# Writes the real named.conf to standard output and the zone that it names beside itself.
hosts = { 'www' => '192.0.2.80', 'mail' => '192.0.2.25', 'generated' => '192.0.2.42' }

File.open('/srv/zone.db', 'w') do |zone|
  zone.puts '$TTL 300', '@ IN SOA ns.example.test. admin.example.test. 1 3600 600 86400 300', '@ IN NS ns.example.test.', 'ns IN A 127.0.0.1'
  hosts.each { |name, address| zone.puts "#{name} IN A #{address}" }
end

puts <<~CONF
  options { directory "/var/cache/bind"; recursion no; listen-on { any; }; listen-on-v6 { none; }; };
  zone "example.test" { type primary; file "/zones/data/example.test.db"; };
CONF
