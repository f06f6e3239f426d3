//! Published ports and the firewall, between real network namespaces: each test is a machine of its own, with a
//! neighbour on a LAN. Needs root, Debian's busybox-static, iproute2 and nftables.

mod busybox;
mod machine;

use machine::{HOST, HOST6, Machine};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCAL6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// What the web server of a container says, asked from a network namespace.
fn ask(from: &OwnedFd, ip: IpAddr, port: u16) -> std::io::Result<String> {
    machine::inside(from, || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(ip, port), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.lines().last().unwrap_or_default().to_owned())
    })
}

/// For what must not get through: a packet that is dropped is only known by the silence.
fn is_closed(from: &OwnedFd, ip: IpAddr, port: u16) -> bool {
    machine::inside(from, || {
        TcpStream::connect_timeout(&SocketAddr::new(ip, port), Duration::from_millis(400)).is_err()
    })
}

/// What comes back of a datagram.
fn echo(from: &OwnedFd, ip: IpAddr, port: u16) -> std::io::Result<String> {
    machine::inside(from, || {
        let any: SocketAddr = if ip.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send_to(b"a question\n", (ip, port))?;
        let mut buffer = [0; 64];
        let (count, _) = socket.recv_from(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..count]).trim_end().to_owned())
    })
}

#[test]
fn a_published_port_is_reached_from_everywhere_and_leaves_nothing() {
    let machine = Machine::new();
    machine.web("web", &["-p", "8080:80", "-p", "5353:53/udp"]);
    machine.echo("web", 53);
    assert_eq!(
        machine.inspect("web", "{{json .NetworkSettings.Ports}}"),
        r#"{"53/udp":[{"HostIp":"0.0.0.0","HostPort":"5353"},{"HostIp":"::","HostPort":"5353"}],"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}]}"#
    );
    assert_eq!(
        machine.inspect("web", "{{json .HostConfig.PortBindings}}"),
        r#"{"53/udp":[{"HostIp":"","HostPort":"5353"}],"80/tcp":[{"HostIp":"","HostPort":"8080"}]}"#
    );
    assert_eq!(machine.ok(&["port", "web", "80"]), "0.0.0.0:8080\n[::]:8080");
    let (here, there) = (&machine.netns, &machine.lan);
    for (from, who) in [(here, "the host"), (there, "a neighbour")] {
        for ip in [HOST.into(), HOST6.into()] {
            assert_eq!(ask(from, ip, 8080).unwrap(), "web", "{who} through {ip}");
            assert_eq!(echo(from, ip, 5353).unwrap(), "a question", "{who} through {ip}");
        }
    }
    for ip in [LOCAL, LOCAL6] {
        assert_eq!(ask(here, ip, 8080).unwrap(), "web", "{ip}");
        assert_eq!(echo(here, ip, 5353).unwrap(), "a question", "{ip}");
    }
    machine.ok(&["network", "create", "other"]);
    let url = format!("http://{HOST}:8080/");
    for network in ["bridge", "other"] {
        let said = machine.ok(&["run", "--rm", "--network", network, "busybox", "wget", "-qO-", &url]);
        assert_eq!(said, "web", "from a container of {network}");
    }
    assert_eq!(machine.ok(&["exec", "web", "wget", "-qO-", &url]), "web", "from itself");
    let listed = |filter: &str| machine.ok(&["ps", "--format", "{{.Names}}", "--filter", filter]);
    assert_eq!(
        [listed("publish=8000-8090"), listed("publish=80"), listed("expose=80/tcp")],
        ["web", "", "web"]
    );
    machine.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(machine.inspect("web", "{{json .NetworkSettings.Ports}}"), "{}");
    machine.ok(&["rm", "web"]);
    assert!(is_closed(here, LOCAL, 8080) && is_closed(here, LOCAL6, 8080));
    machine.is_bare();
}

#[test]
fn large_transfers_and_half_closed_connections_pass_the_relay() {
    let machine = Machine::new();
    machine.ok(&[
        "run",
        "-d",
        "--name",
        "cat",
        "-p",
        "[::1]:7000:7",
        "busybox",
        "nc",
        "-ll",
        "-p",
        "7",
        "-e",
        "cat",
    ]);
    let sent = vec![b'x'; 3 << 20];
    let received = machine::inside(&machine.netns, || {
        let mut stream = machine::eventually(|| {
            TcpStream::connect((LOCAL6, 7000)).ok().filter(|stream| {
                // The relay resets what the container refuses.
                let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
                !stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
            })
        });
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sent = &sent;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                writer.write_all(sent).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            received
        })
    });
    assert_eq!(received.len(), sent.len());
    machine.ok(&["rm", "-f", "cat"]);
    machine.is_bare();
}

#[test]
fn forms_of_publishing() {
    let machine = Machine::new();
    let ports = |name: &str| machine.inspect(name, "{{json .NetworkSettings.Ports}}");
    let both = |port: &str, host: &str| {
        format!(
            r#""{port}":[{{"HostIp":"0.0.0.0","HostPort":"{host}"}},{{"HostIp":"::","HostPort":"{host}"}}]"#
        )
    };
    let run = |name: &str, options: &[&str]| {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(options);
        args.extend(["busybox", "sleep", "1000"]);
        machine.run(&args)
    };
    assert_eq!(run("range", &["-p", "7000-7001:80-81"]).code, 0);
    assert_eq!(ports("range"), format!("{{{},{}}}", both("80/tcp", "7000"), both("81/tcp", "7001")));
    let taken = machine::inside(&machine.netns, || TcpListener::bind("0.0.0.0:7100").unwrap());
    assert_eq!(run("first-free", &["-p", "7100-7105:80"]).code, 0);
    assert_eq!(ports("first-free"), format!("{{{}}}", both("80/tcp", "7101")));
    drop(taken);
    assert_eq!(run("any", &["-p", "127.0.0.1::80"]).code, 0);
    let any = machine.ok(&["port", "any", "80/tcp"]);
    assert!(any.strip_prefix("127.0.0.1:").is_some_and(|port| port.parse::<u16>().unwrap() >= 1024), "{any}");
    assert_eq!(run("v6", &["-p", "[::1]:7200:80", "-p", "[::]:7201:81"]).code, 0);
    assert_eq!(
        ports("v6"),
        r#"{"80/tcp":[{"HostIp":"::1","HostPort":"7200"}],"81/tcp":[{"HostIp":"::","HostPort":"7201"}]}"#
    );
    assert_eq!(run("all", &["-P", "--expose", "90-91", "--expose", "53/udp", "-p", "7300:90"]).code, 0);
    let all = machine.ok(&["port", "all"]);
    assert_eq!(all.lines().count(), 6, "{all}");
    assert!(all.contains("90/tcp -> 0.0.0.0:7300"), "{all}");
    assert_eq!(run("host", &["-p", &format!("{HOST}:7400:80")]).code, 0);
    assert_eq!(machine.ok(&["port", "host"]), format!("80/tcp -> {HOST}:7400"));
    assert_eq!(run("sctp", &["-p", "7500:80/sctp"]).code, 0);
    assert_eq!(ports("sctp"), r#"{"80/sctp":[{"HostIp":"0.0.0.0","HostPort":"7500"}]}"#);
    for (bad, text) in [
        ("7000-7002:80-81", "invalid ranges specified for container and host Ports"),
        ("localhost:80:80", "invalid IP address"),
        ("80/icmp", "invalid proto"),
        ("0.0.0.0:99999:80", "invalid hostPort: 99999"),
    ] {
        let refused = run("bad", &["-p", bad]);
        assert_eq!(refused.code, 125, "{bad}");
        assert!(refused.err.contains(text), "{bad}: {}", refused.err);
    }
    let elsewhere = run("elsewhere", &["-p", "192.0.2.77:7600:80"]);
    assert!(elsewhere.err.contains("cannot assign requested address"), "{}", elsewhere.err);
    machine.ok(&["rm", "-f", "range", "first-free", "any", "v6", "all", "host", "sctp", "elsewhere"]);
    machine.is_bare();
}

#[test]
fn conflicts_name_who_has_the_port() {
    let machine = Machine::new();
    machine.web("web", &["-p", "8080:80"]);
    let refused =
        machine.run(&["run", "-d", "--name", "second", "-p", "127.0.0.1:8080:80", "busybox", "true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.err.contains("endpoint second ("), "{}", refused.err);
    assert!(
        refused.err.contains(
            "Bind for 127.0.0.1:8080 failed: port is already allocated\ncontainer web publishes it"
        ),
        "{}",
        refused.err
    );
    // Nor does anybody else on the host get it.
    for address in ["0.0.0.0:8080", "[::]:8080", "127.0.0.1:8080"] {
        let bound = machine::inside(&machine.netns, || TcpListener::bind(address));
        assert_eq!(bound.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "{address}");
    }
    let mut holder = machine.spawn("busybox", &["nc", "-ll", "-p", "9090", "-e", "cat"]);
    machine::eventually(|| machine::inside(&machine.netns, || TcpStream::connect("127.0.0.1:9090").ok()));
    let refused = machine.run(&["run", "-d", "--name", "third", "-p", "9090:80", "busybox", "true"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let hint = format!("process {} (busybox) of this host has it", holder.id());
    assert!(refused.err.contains("address already in use") && refused.err.contains(&hint), "{}", refused.err);
    machine.ok(&["start", "third"]);
    // What a killed monitor held is free again for whoever asks next.
    let pid = machine.monitor_of("web");
    machine.kill(pid);
    machine.ok(&["run", "-d", "--name", "heir", "-p", "8080:80", "busybox", "sleep", "1000"]);
    machine.ok(&["rm", "-f", "web", "second", "third", "heir"]);
    machine.is_bare();
}

#[test]
fn a_port_follows_its_container() {
    let machine = Machine::new();
    machine.ok(&["network", "create", "front"]);
    machine.ok(&["network", "create", "back"]);
    machine.web("web", &["--network", "front", "-p", "8080:80"]);
    let here = &machine.netns;
    assert_eq!(ask(here, LOCAL, 8080).unwrap(), "web");
    machine.ok(&["network", "connect", "back", "web"]);
    machine.ok(&["network", "disconnect", "front", "web"]);
    assert_eq!(ask(here, LOCAL, 8080).unwrap(), "web", "through the other network");
    assert_eq!(ask(here, LOCAL6, 8080).unwrap(), "web", "through the other network");
    machine.ok(&["network", "disconnect", "back", "web"]);
    assert!(is_closed(here, LOCAL, 8080) && is_closed(here, LOCAL6, 8080));
    assert_eq!(machine.inspect("web", "{{json .NetworkSettings.Ports}}"), r#"{"80/tcp":null}"#);
    machine.ok(&["network", "connect", "front", "web"]);
    assert_eq!(ask(here, LOCAL, 8080).unwrap(), "web", "open again");
    assert_eq!(ask(here, LOCAL6, 8080).unwrap(), "web", "open again");
    machine.ok(&["restart", "-t", "0", "web"]);
    machine.is_ready("web");
    assert_eq!(ask(here, LOCAL, 8080).unwrap(), "web", "after a restart");
    machine.ok(&["rm", "-f", "web"]);
    machine.is_bare();
}

#[test]
fn containers_with_ipv6_are_reached_without_a_relay() {
    let machine = Machine::new();
    machine.ok(&["network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six"]);
    machine.web("web", &["--network", "six", "-p", "8080:80"]);
    for from in [&machine.netns, &machine.lan] {
        for ip in [HOST.into(), HOST6.into()] {
            assert_eq!(ask(from, ip, 8080).unwrap(), "web", "{ip}");
        }
    }
    assert_eq!(machine.relays(), 0);
    assert_eq!(ask(&machine.netns, LOCAL6, 8080).unwrap(), "web");
    assert_eq!(machine.relays(), 1, "::1 cannot be translated");
    machine.ok(&["rm", "-f", "web"]);
    assert_eq!(machine.relays(), 0);
    // Without IPv4 it is the other way round.
    machine.ok(&["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:78::/64", "only"]);
    machine.web("web", &["--network", "only", "-p", "8080:80"]);
    for ip in [HOST.into(), HOST6.into(), LOCAL, LOCAL6] {
        assert_eq!(ask(&machine.netns, ip, 8080).unwrap(), "web", "{ip}");
    }
    machine.ok(&["rm", "-f", "web"]);
    machine.is_bare();
}

#[test]
fn rules_that_somebody_took_come_back() {
    let machine = Machine::new();
    machine.web("web", &["-p", "8080:80"]);
    machine.ok(&["run", "-d", "--name", "other", "busybox", "sleep", "1000"]);
    let here = &machine.netns;
    let whole = machine.ruleset();
    // Whoever saves the machine's rules can load them again.
    let saved = machine.dir.join("rules.nft");
    std::fs::write(&saved, format!("flush ruleset\n{whole}")).unwrap();
    let loaded = machine.host("nft", &["-f", saved.to_str().unwrap()]);
    assert_eq!((loaded.code, loaded.err.as_str()), (0, ""));
    assert_eq!(ask(&machine.lan, HOST.into(), 8080).unwrap(), "web");
    machine::eventually(|| (machine.ruleset() == whole).then_some(()));
    let flushes: [&[&str]; 3] =
        [&["flush", "ruleset"], &["flush", "table", "inet"], &["delete", "table", "inet"]];
    let table = whole.lines().next().unwrap().trim_start_matches("table inet ").trim_end_matches(" {");
    for flush in flushes {
        let mut args = flush.to_vec();
        if flush.len() > 2 {
            args.push(table);
        }
        let flushed = machine.host("nft", &args);
        assert_eq!(flushed.code, 0, "{}", flushed.err);
        assert_eq!(ask(here, LOCAL, 8080).unwrap(), "web", "the relay serves meanwhile");
        machine::eventually(|| (machine.ruleset() == whole).then_some(()));
        assert_eq!(ask(&machine.lan, HOST.into(), 8080).unwrap(), "web");
    }
    // A part of the table is missed too: each chain at once, what sets and maps hold when somebody asks.
    for part in ["guard", "prerouting", "output", "postrouting", "forward", "publish"] {
        assert_eq!(machine.host("nft", &["flush", "chain", "inet", table, part]).code, 0, "{part}");
        machine::eventually(|| (machine.ruleset() == whole).then_some(()));
    }
    for (kind, part) in [("map", "anywhere4"), ("set", "bridges"), ("set", "networks4")] {
        assert_eq!(machine.host("nft", &["flush", kind, "inet", table, part]).code, 0, "{part}");
        assert_eq!(machine.run(&["system", "restore-firewall"]).code, 0);
        assert_eq!(machine.ruleset(), whole, "{part}");
    }
    // A firewall that is loaded later, and drops what it does not know.
    let drop = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    assert_eq!(machine.host("nft", &[drop]).code, 0);
    machine::eventually(|| ask(&machine.lan, HOST.into(), 8080).ok());
    // The one that watched is gone: another one does.
    machine.ok(&["rm", "-f", "web"]);
    machine.host("nft", &["flush", "ruleset"]);
    machine::eventually(|| machine.ruleset().contains(table).then_some(()));
    machine.ok(&["rm", "-f", "other"]);
    machine.is_bare();
}

#[test]
fn a_foreign_firewall_lets_containers_through_and_keeps_nothing_of_ours() {
    let machine = Machine::new();
    // As ufw and firewalld have it: the one drops by policy, the other rejects at the end.
    let rules = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
        add table ip6 filter; add chain ip6 filter FORWARD { type filter hook forward priority 0; policy drop; }
        add table inet firewalld; add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }
        add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited";
    assert_eq!(machine.host("nft", &[rules]).code, 0);
    let before = machine.ruleset();
    machine.ok(&["network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six"]);
    machine.web("web", &["--network", "six", "-p", "8080:80"]);
    for ip in [HOST.into(), HOST6.into()] {
        assert_eq!(ask(&machine.lan, ip, 8080).unwrap(), "web", "{ip}");
    }
    machine.ok(&["rm", "-f", "web"]);
    machine::eventually(|| (machine.ruleset() == before).then_some(()));
}

#[test]
fn what_is_not_published_is_closed() {
    let machine = Machine::new();
    machine.ok(&["network", "create", "--internal", "inner"]);
    machine.ok(&["network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "apart"]);
    machine.web("web", &["-p", "127.0.0.1:8080:80"]);
    machine.web("inside", &["--network", "inner", "-p", "8081:80"]);
    machine.web("one", &["--network", "apart", "-p", "8082:80"]);
    let ip = |name: &str| {
        let ip = machine.inspect(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
        ip.parse::<IpAddr>().unwrap_or_else(|_| panic!("{name}: {ip:?}"))
    };
    let (here, there) = (&machine.netns, &machine.lan);
    // The neighbour's default route leads through the host: forged or plain, nothing gets by.
    assert!(is_closed(there, ip("web"), 80), "not by its own address");
    assert!(is_closed(there, HOST.into(), 8080), "published on loopback alone");
    assert!(is_closed(there, HOST6.into(), 8080), "published on loopback alone");
    machine.host("sysctl", &["-qw", "net.ipv4.conf.lan0.route_localnet=1"]);
    machine::inside(there, || std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap());
    let routed = machine.neighbour("ip", &["route", "add", "127.0.0.1/32", "via", "192.0.2.1"]);
    assert_eq!(routed.code, 0, "{}", routed.err);
    machine.neighbour("ip", &["rule", "add", "pref", "1", "to", "127.0.0.1", "lookup", "main"]);
    machine.neighbour("ip", &["rule", "add", "pref", "10", "lookup", "local"]);
    machine.neighbour("ip", &["rule", "del", "pref", "0"]);
    machine.ok(&["run", "-d", "--name", "all", "-p", "8083:80", "busybox", "sleep", "1000"]);
    assert!(is_closed(there, LOCAL, 8080), "nor through the host's loopback (CVE-2020-8558)");
    assert_eq!(ask(here, LOCAL, 8080).unwrap(), "web");
    assert_eq!(machine.inspect("inside", "{{json .NetworkSettings.Ports}}"), r#"{"80/tcp":null}"#);
    assert!(is_closed(here, LOCAL, 8081), "an internal network publishes nothing");
    let fetch = |network: &str, ip: IpAddr, port: u16| {
        let url = format!("http://{ip}:{port}/");
        machine
            .run(&["run", "--rm", "--network", network, "busybox", "timeout", "1", "wget", "-qO-", &url])
            .out
    };
    assert_eq!(fetch("inner", ip("inside"), 80), "inside\n");
    assert_eq!(fetch("bridge", ip("inside"), 80), "");
    assert_eq!(fetch("bridge", ip("one"), 80), "", "networks are closed to each other");
    assert_eq!(fetch("apart", ip("one"), 80), "", "without icc so are its containers");
    assert_eq!(fetch("apart", HOST.into(), 8082), "one\n", "but for what they publish");
    assert_eq!(ask(here, ip("one"), 80).unwrap(), "one", "the host reaches all");
    // The same without bridge-netfilter, where the machine has it.
    machine.host("sysctl", &["-qw", "net.bridge.bridge-nf-call-iptables=0"]);
    machine.ok(&["restart", "-t", "0", "one"]);
    machine.is_ready("one");
    assert_eq!(fetch("apart", ip("one"), 80), "", "without icc so are its containers");
    assert_eq!(fetch("apart", HOST.into(), 8082), "one\n", "but for what they publish");
}

#[test]
fn a_udp_flow_goes_where_the_port_leads_now() {
    let machine = Machine::new();
    let client = machine::inside(&machine.lan, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((HOST, 5353)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    });
    let mut buffer = [0; 16];
    for name in ["first", "second"] {
        machine.ok(&["run", "-d", "--name", name, "-p", "5353:53/udp", "busybox", "sleep", "1000"]);
        machine.echo(name, 53);
        // The same sender each time: its flow is tracked.
        client.send(name.as_bytes()).unwrap();
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], name.as_bytes());
        machine.ok(&["rm", "-f", name]);
        // Its address goes to another one.
        machine.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    }
}

#[test]
fn the_configuration_says_how_far_ports_open() {
    let machine = Machine::new();
    let configure = |text: &str| std::fs::write(machine.dir.join("config.toml"), text).unwrap();
    configure("publish = \"announce\"\n");
    let told = machine.run(&[
        "run",
        "-d",
        "--name",
        "told",
        "-p",
        "8080:80",
        "-p",
        "127.0.0.1:8081:81",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(
        told.err.contains("open to other machines: 0.0.0.0:8080 -> 80/tcp, [::]:8080 -> 80/tcp of told"),
        "{}",
        told.err
    );
    configure("publish = \"loopback\"\n");
    machine.ok(&["rm", "-f", "told"]);
    machine.web("here", &["-p", "8080:80"]);
    assert_eq!(machine.ok(&["port", "here"]), "80/tcp -> 127.0.0.1:8080\n80/tcp -> [::1]:8080");
    assert_eq!(ask(&machine.netns, LOCAL, 8080).unwrap(), "here");
    assert_eq!(ask(&machine.netns, LOCAL6, 8080).unwrap(), "here");
    assert!(is_closed(&machine.lan, HOST.into(), 8080));
    let refused = machine.run(&["run", "-d", "-p", "0.0.0.0:8082:80", "busybox", "true"]);
    assert_eq!(refused.code, 125);
    assert!(refused.err.contains("the configuration forbids"), "{}", refused.err);
    assert_eq!(machine.ok(&["info", "-f", "{{.Cauldron.Config.publish}}"]), "loopback");
    configure("ip = \"192.0.2.1\"\n");
    machine.ok(&["run", "-d", "--name", "there", "-p", "8083:80", "busybox", "sleep", "1000"]);
    assert_eq!(machine.ok(&["port", "there"]), "80/tcp -> 192.0.2.1:8083");
    machine.ok(&[
        "network",
        "create",
        "-o",
        "com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
        "bound",
    ]);
    machine.ok(&[
        "run",
        "-d",
        "--name",
        "option",
        "--network",
        "bound",
        "-p",
        "8084:80",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(machine.ok(&["port", "option"]), "80/tcp -> 127.0.0.1:8084");
}

/// Debian's dockerd in the machine's network namespace, with directories of its own.
struct Dockerd(std::process::Child);

impl Dockerd {
    fn start(machine: &Machine) -> Self {
        let path = |name: &str| machine.dir.join("docker").join(name).display().to_string();
        let (data, exec, pid) = (path("data"), path("exec"), path("pid"));
        let host = format!("unix://{}", path("sock"));
        std::fs::create_dir_all(machine.dir.join("docker")).unwrap();
        let args = [
            "--data-root",
            &data,
            "--exec-root",
            &exec,
            "--pidfile",
            &pid,
            "-H",
            &host,
            "--log-level",
            "warn",
        ];
        let child = machine.spawn("dockerd", &args);
        machine::eventually(|| std::os::unix::net::UnixStream::connect(path("sock")).ok());
        machine::eventually(|| machine.ruleset().contains("DOCKER-USER").then_some(()));
        Self(child)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // dockerd ends its containerd only where it may end itself.
        let pidfd = sys::process::pidfd(self.0.id().try_into().unwrap()).unwrap();
        sys::process::signal(&pidfd, 15).unwrap();
        let _ = self.0.wait();
    }
}

#[test]
fn it_works_beside_dockerd() {
    let machine = Machine::new();
    machine.web("before", &["-p", "8080:80"]);
    let there = &machine.lan;
    // Where dockerd must turn forwarding on itself, it has its chain drop by policy.
    machine.host("sysctl", &["-qw", "net.ipv4.ip_forward=0"]);
    let dockerd = Dockerd::start(&machine);
    assert!(machine.ruleset().contains("policy drop"), "dockerd lets nothing through by itself");
    machine::eventually(|| ask(there, HOST.into(), 8080).ok());
    machine.ok(&["network", "create", "own"]);
    machine.web("after", &["--network", "own", "-p", "8081:80"]);
    assert_eq!(ask(there, HOST.into(), 8081).unwrap(), "after");
    // Outward too, by address of the neighbour.
    let listener = machine::inside(there, || TcpListener::bind("0.0.0.0:7").unwrap());
    machine.ok(&[
        "exec",
        "after",
        "nc",
        "-w",
        "3",
        machine::NEIGHBOUR.to_string().as_str(),
        "7",
        "-e",
        "true",
    ]);
    assert_eq!(listener.accept().unwrap().1.ip(), IpAddr::V4(HOST), "masqueraded");
    machine.ok(&["rm", "-f", "before", "after"]);
    machine::eventually(|| (!machine.ruleset().contains("cauldron")).then_some(()));
    drop(dockerd);
}
