//! Networks on the real kernel, each test in a network namespace of its own: the machine's own stay untouched.

use model::container::{EndpointSpec, Port, PortBinding};
use model::network::{Cidr, Subnet};
use model::{ContainerId, Kind};
use net::{Config, Endpoint, NetworkRequest, Networks, PublishedPort};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use sys::netlink::{Socket, route};

struct Root(PathBuf);

impl Root {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("cauldron-net-{}", id().short()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        Self(dir)
    }
    fn networks(&self, instance: &str) -> Networks {
        Networks::open(config(&self.0, instance)).expect("networks open")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config(root: &Path, instance: &str) -> Config {
    Config {
        dir: root.join(format!("networks{instance}")),
        run_dir: root.join(format!("run{instance}")),
        instance: instance.to_owned(),
        pools: vec![(Cidr::parse("10.88.0.0/13").expect("a pool"), 16)],
        publish_address: None,
        publish: Default::default(),
    }
}

fn id() -> ContainerId {
    let mut bytes = [0u8; 32];
    rustix::rand::getrandom(bytes.as_mut_slice(), rustix::rand::GetRandomFlags::empty()).expect("randomness");
    ContainerId::from_bytes(bytes)
}

/// Runs a test as if this were a machine of its own.
fn on_a_machine(test: impl FnOnce(&Root) + Send) {
    let namespace = Networks::new_namespace().expect("a network namespace: these tests need root");
    let root = Root::new();
    sys::netlink::within(namespace.as_fd(), || test(&root)).expect("the test did not panic");
}

struct Running {
    id: ContainerId,
    netns: OwnedFd,
    ends: Vec<Endpoint>,
    ports: Vec<PublishedPort>,
}

fn on(network: &str) -> EndpointSpec {
    EndpointSpec { network: network.to_owned(), ..EndpointSpec::default() }
}

fn publish(port: &str, host_ip: Option<&str>, host: Option<u16>) -> PortBinding {
    PortBinding {
        container: Port::parse(port).expect("a port"),
        host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
        host_ports: host.map(|port| (port, port)),
    }
}

fn run(networks: &Networks, names: &[&str], ports: &[PortBinding]) -> model::Result<Running> {
    let id = id();
    let ends: Vec<Endpoint> =
        names.iter().map(|name| networks.reserve(&id, &on(name), &[])).collect::<Result<_, _>>()?;
    let netns = Networks::new_namespace()?;
    let publish = net::Publish { ports, name: "test", name_of: &|_| None };
    let ports = networks.connect(&id, &ends, netns.as_fd(), &publish)?;
    Ok(Running { id, netns, ends, ports })
}

impl Running {
    fn ip(&self) -> Ipv4Addr {
        self.ends[0].ipv4.expect("an IPv4 address")
    }
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        sys::netlink::within(self.netns.as_fd(), work).expect("inside the container")
    }
    /// Answers every connection with its own address and the peer's, until the process ends.
    fn serve(&self, port: u16) {
        let listener = self.inside(|| TcpListener::bind(("0.0.0.0", port))).expect("listen");
        let name = self.ip();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
                let _ = write!(stream, "{name} {peer}");
            }
        });
    }
}

fn ask(to: impl Into<SocketAddr>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to.into(), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// For what must not get through: a packet that is dropped is only known by the silence.
fn is_closed(to: impl Into<SocketAddr>) -> bool {
    TcpStream::connect_timeout(&to.into(), Duration::from_millis(400)).is_err()
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// Another machine on a LAN, this one being 192.0.2.1 there and the other 192.0.2.2 (with a default route to us).
fn neighbour() -> OwnedFd {
    let other = Networks::new_namespace().expect("a network namespace");
    let mut socket = Socket::route().expect("a socket");
    let mac = |last| [0x02, 0, 0, 0, 0, last];
    socket.request(vec![route::new_bridge("lan0", mac(1), 1400)]).expect("a bridge");
    let lan = socket.link("lan0").expect("a link").expect("it exists").index;
    socket
        .request(vec![
            route::new_address(lan, Ipv4Addr::new(192, 0, 2, 1).into(), 24),
            route::new_veth("lan1", lan, 1400, "eth0", mac(2), other.as_fd()),
            route::default_route(Ipv4Addr::new(192, 0, 2, 2).into()),
        ])
        .expect("a pair");
    sys::netlink::within(other.as_fd(), || {
        let mut socket = Socket::route().expect("a socket");
        let link = socket.link("eth0").expect("a link").expect("it exists").index;
        socket
            .request(vec![
                route::new_address(link, Ipv4Addr::new(192, 0, 2, 2).into(), 24),
                route::set_up(link),
            ])
            .expect("an address");
    })
    .expect("the neighbour");
    other
}

fn interfaces() -> Vec<String> {
    let mut names: Vec<String> = Socket::route()
        .expect("a socket")
        .links()
        .expect("links")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.retain(|name| name.starts_with("cld") || name.starts_with("cauldron") || name.starts_with("veth"));
    names
}

fn tables() -> Vec<String> {
    Socket::netfilter().expect("a socket").tables(sys::netlink::nft::INET).expect("tables")
}

#[test]
fn containers_of_a_network_reach_each_other_and_nothing_stays() {
    on_a_machine(|root| {
        let networks = root.networks("");
        let web = run(&networks, &["bridge"], &[]).expect("web");
        let client = run(&networks, &["bridge"], &[]).expect("client");
        assert_eq!(web.ip(), Ipv4Addr::new(10, 88, 0, 2));
        assert_eq!(client.ip(), Ipv4Addr::new(10, 88, 0, 3));
        assert_eq!(web.ends[0].mac, "02:42:0a:58:00:02");
        web.serve(80);
        let answer = client.inside(|| ask(at(web.ip(), 80))).expect("through the bridge");
        assert_eq!(answer, "10.88.0.2 10.88.0.3");
        assert_eq!(ask(at(web.ip(), 80)).expect("from the host"), "10.88.0.2 10.88.0.1");
        assert_eq!(networks.members("bridge").expect("members").len(), 2);
        networks.release(&web.id).expect("release");
        assert_eq!(interfaces().len(), 2, "{:?}", interfaces());
        networks.release(&client.id).expect("release");
        networks.release(&client.id).expect("release again");
        assert_eq!(interfaces(), Vec::<String>::new());
        assert_eq!(tables(), Vec::<String>::new());
        assert!(networks.holders().expect("holders").is_empty());
    });
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    on_a_machine(|root| {
        let lan = neighbour();
        let networks = root.networks("");
        networks
            .create(NetworkRequest { name: "other".to_owned(), ..NetworkRequest::default() })
            .expect("other");
        let web = run(&networks, &["bridge"], &[publish("80", None, Some(8080))]).expect("web");
        let stranger = run(&networks, &["other"], &[]).expect("stranger");
        let sibling = run(&networks, &["bridge"], &[]).expect("sibling");
        web.serve(80);
        assert_eq!(web.ports[0].host_ip, IpAddr::from([0, 0, 0, 0]));
        assert_eq!(networks.ports(&web.id).expect("ports"), web.ports);
        let host = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(ask(at(Ipv4Addr::LOCALHOST, 8080)).expect("loopback"), "10.88.0.2 10.88.0.1");
        assert!(ask(at(host, 8080)).expect("the host's address").starts_with("10.88.0.2"));
        let far = sys::netlink::within(lan.as_fd(), || ask(at(host, 8080))).expect("the neighbour");
        assert_eq!(far.expect("from another machine"), "10.88.0.2 192.0.2.2");
        for (who, container) in [("itself", &web), ("a sibling", &sibling), ("another network", &stranger)] {
            let answer = container.inside(|| ask(at(host, 8080)));
            assert!(answer.is_ok_and(|text| text.starts_with("10.88.0.2")), "from {who}");
        }
        assert!(stranger.inside(|| is_closed(at(web.ip(), 80))), "networks are closed to each other");
        networks.release(&web.id).expect("release");
        assert!(is_closed(at(Ipv4Addr::LOCALHOST, 8080)));
    });
}

#[test]
fn loopback_publishing_stays_on_this_host() {
    on_a_machine(|root| {
        let lan = neighbour();
        let networks = root.networks("");
        let web = run(&networks, &["bridge"], &[publish("80", Some("127.0.0.1"), Some(8080))]).expect("web");
        web.serve(80);
        assert!(ask(at(Ipv4Addr::LOCALHOST, 8080)).is_ok());
        assert!(is_closed(at(Ipv4Addr::new(192, 0, 2, 1), 8080)));
        sys::netlink::within(lan.as_fd(), || {
            let mut socket = Socket::route().expect("a socket");
            socket.request(vec![route::default_route(Ipv4Addr::new(192, 0, 2, 1).into())]).expect("a route");
            assert!(is_closed(at(Ipv4Addr::new(192, 0, 2, 1), 8080)));
            assert!(is_closed(at(web.ip(), 80)), "unpublished ports are not routed to");
        })
        .expect("the neighbour");
        networks.release(&web.id).expect("release");
    });
}

#[test]
fn containers_reach_the_world_masqueraded_unless_internal() {
    on_a_machine(|root| {
        let lan = neighbour();
        let networks = root.networks("");
        let inner = NetworkRequest { name: "inner".to_owned(), internal: true, ..NetworkRequest::default() };
        networks.create(inner).expect("inner");
        let listener = sys::netlink::within(lan.as_fd(), || TcpListener::bind("0.0.0.0:7"))
            .expect("in")
            .expect("listen");
        let open = run(&networks, &["bridge"], &[]).expect("open");
        let shut = run(&networks, &["inner"], &[]).expect("shut");
        let there = at(Ipv4Addr::new(192, 0, 2, 2), 7);
        open.inside(|| TcpStream::connect_timeout(&there, Duration::from_secs(5))).expect("out");
        let (_, peer) = listener.accept().expect("accept");
        assert_eq!(peer.ip(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(shut.ends[0].gateway, None);
        assert!(shut.inside(|| is_closed(there)));
        assert_eq!(
            Socket::route().expect("a socket").link("cauldron0").expect("a link").expect("there").mtu,
            1400
        );
    });
}

#[test]
fn udp_is_published_too() {
    on_a_machine(|root| {
        let networks = root.networks("");
        let dns = run(&networks, &["bridge"], &[publish("53/udp", None, Some(5353))]).expect("dns");
        let server = dns.inside(|| UdpSocket::bind("0.0.0.0:53")).expect("bind");
        let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        client.send_to(b"question", "127.0.0.1:5353").expect("send");
        let mut buffer = [0; 16];
        let (count, from) = server.recv_from(&mut buffer).expect("receive");
        server.send_to(&buffer[..count], from).expect("answer");
        let (count, from) = client.recv_from(&mut buffer).expect("the answer");
        assert_eq!((&buffer[..count], from.port()), (&b"question"[..], 5353));
    });
}

#[test]
fn conflicts_name_who_has_the_port() {
    on_a_machine(|root| {
        let networks = root.networks("");
        let web = run(&networks, &["bridge"], &[publish("80", None, Some(8080))]).expect("web");
        let error = run(&networks, &["bridge"], &[publish("80", Some("127.0.0.1"), Some(8080))])
            .err()
            .expect("taken");
        assert!(
            error.message().ends_with("Bind for 127.0.0.1:8080 failed: port is already allocated"),
            "{error}"
        );
        assert!(error.hint_text().is_some_and(|hint| hint.contains(web.id.short())));
        let _listener = TcpListener::bind("0.0.0.0:9090").expect("listen");
        let error = run(&networks, &["bridge"], &[publish("80", None, Some(9090))]).err().expect("taken");
        assert!(
            error.message().contains("Bind for 0.0.0.0:9090 failed: port is already allocated"),
            "{error}"
        );
        let other = root.networks("abcdef");
        let error = run(&other, &["bridge"], &[publish("80", None, Some(8080))])
            .err()
            .expect("taken by another engine");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("another engine")), "{error}");
        let any = run(&networks, &["bridge"], &[publish("80", None, None)]).expect("any port");
        assert!(any.ports[0].host_port >= 32768);
    });
}

#[test]
fn engines_side_by_side_take_different_subnets() {
    on_a_machine(|root| {
        let (one, two) = (root.networks("000000"), root.networks("000008"));
        let a = run(&one, &["bridge"], &[]).expect("a");
        let b = run(&two, &["bridge"], &[]).expect("b");
        assert_ne!(a.ends[0].ipv4, b.ends[0].ipv4);
        assert_eq!(tables().len(), 2);
        one.release(&a.id).expect("release");
        assert_eq!(tables(), ["cauldron-000008"]);
        b.serve(80);
        assert!(ask(at(b.ip(), 80)).is_ok());
    });
}

#[test]
fn addresses_are_given_once_and_subnets_are_checked() {
    on_a_machine(|root| {
        let networks = root.networks("");
        let subnet = |net: &str| Subnet {
            net: Cidr::parse(net).expect("a subnet"),
            gateway: None,
            range: None,
            aux: Default::default(),
        };
        let request = |name: &str, net: &str| NetworkRequest {
            name: name.to_owned(),
            subnets: vec![subnet(net)],
            ..NetworkRequest::default()
        };
        networks.create(request("tiny", "10.9.0.0/29")).expect("tiny");
        let error = networks.create(request("again", "10.9.0.0/24")).expect_err("overlaps");
        assert!(error.message().contains("Pool overlaps with other one on this address space"), "{error}");
        assert!(error.message().contains("network tiny"), "{error}");
        assert_eq!(
            networks.create(request("tiny", "10.10.0.0/24")).expect_err("exists").kind(),
            Kind::AlreadyExists
        );
        let five: Vec<ContainerId> = (0..5).map(|_| id()).collect();
        for (number, container) in five.iter().enumerate() {
            let end = networks.reserve(container, &on("tiny"), &[]).expect("an address");
            assert_eq!(end.ipv4, Some(Ipv4Addr::new(10, 9, 0, 2 + number as u8)));
        }
        assert_eq!(
            networks.reserve(&id(), &on("tiny"), &[]).expect_err("exhausted").kind(),
            Kind::ResourceExhausted
        );
        let fixed = EndpointSpec { ipv4: Some(Ipv4Addr::new(10, 9, 0, 3)), ..on("tiny") };
        let error = networks.reserve(&id(), &fixed, &[]).expect_err("taken");
        assert!(error.hint_text().is_some_and(|hint| hint.contains(five[1].short())), "{error}");
        assert!(networks.remove("tiny").expect_err("in use").message().contains("has active endpoints"));
        networks.release(&five[1]).expect("release");
        assert_eq!(networks.reserve(&id(), &fixed, &[]).expect("free again").ipv4, fixed.ipv4);
        assert!(networks.remove("bridge").is_err());
    });
}

#[test]
fn what_was_leased_of_a_subnet_that_another_engine_took_is_leased_anew() {
    on_a_machine(|root| {
        // Both look for a free subnet from the same place on.
        let (mine, other) = (root.networks("0"), root.networks("8"));
        let named = || NetworkRequest { name: "n".to_owned(), ..NetworkRequest::default() };
        mine.create(named()).expect("mine");
        other.create(named()).expect("the other's");
        let two = [id(), id()];
        let reserve = |container: &ContainerId| mine.reserve(container, &on("n"), &[]).expect("an address");
        let before = [reserve(&two[0]), reserve(&two[1])];
        let theirs = run(&other, &["n"], &[]).expect("the other's container");
        assert_eq!(theirs.ends[0].ipv4, before[0].ipv4);
        let connect = |container: &ContainerId, endpoint: &Endpoint| {
            let netns = Networks::new_namespace().expect("a namespace");
            let publish = net::Publish { ports: &[], name: "", name_of: &|_| None };
            mine.connect(container, std::slice::from_ref(endpoint), netns.as_fd(), &publish)
        };
        // Neither waits for the other to give its lease back.
        for (container, endpoint) in two.iter().zip(&before) {
            assert_eq!(connect(container, endpoint).expect_err("taken").kind(), Kind::Unavailable);
            mine.release(container).expect("release");
            mine.choose_again("n").expect("another subnet");
            let again = reserve(container);
            assert_ne!(again.ipv4.map(|ip| ip.octets()[1]), endpoint.ipv4.map(|ip| ip.octets()[1]));
            connect(container, &again).expect("connected");
        }
        let subnets = &mine.get("n").expect("the network").subnets;
        assert!(mine.endpoints(&two[0]).expect("endpoints").iter().all(|end| {
            end.ipv4.is_some_and(|ip| subnets.iter().any(|subnet| subnet.net.contains(IpAddr::V4(ip))))
        }));
        for container in &two {
            mine.release(container).expect("release");
        }
        other.release(&theirs.id).expect("release");
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    on_a_machine(|root| {
        let networks = root.networks("");
        networks
            .create(NetworkRequest { name: "back".to_owned(), ..NetworkRequest::default() })
            .expect("back");
        let web = run(&networks, &["bridge"], &[publish("80", None, Some(8080))]).expect("web");
        let db = run(&networks, &["back"], &[]).expect("db");
        db.serve(3306);
        web.serve(80);
        let end = networks.reserve(&web.id, &on("back"), &[]).expect("reserve");
        assert_eq!(end.interface, "eth1");
        networks.connect(&web.id, &[end], web.netns.as_fd(), &net::Publish::NOTHING).expect("connect");
        assert!(web.inside(|| ask(at(db.ip(), 3306))).is_ok());
        networks.disconnect(&web.id, "bridge", Some(web.netns.as_fd())).expect("disconnect");
        assert!(ask(at(Ipv4Addr::LOCALHOST, 8080)).is_ok(), "the port follows to the network that is left");
        networks.disconnect(&web.id, "back", Some(web.netns.as_fd())).expect("disconnect");
        assert!(networks.ports(&web.id).expect("ports").is_empty());
        assert!(networks.disconnect(&web.id, "back", None).is_err());
        networks.release(&web.id).expect("release");
        networks.release(&db.id).expect("release");
        assert_eq!((interfaces(), tables()), (Vec::new(), Vec::new()));
    });
}

#[test]
fn a_hundred_at_once() {
    on_a_machine(|root| {
        let machine = sys::netlink::namespace().expect("this namespace");
        let threads: Vec<_> = (0..100)
            .map(|_| {
                let (config, machine) = (config(&root.0, ""), machine.try_clone().expect("a descriptor"));
                std::thread::spawn(move || {
                    sys::netlink::within(machine.as_fd(), || {
                        let networks = Networks::open(config).expect("open");
                        let up = run(&networks, &["bridge"], &[publish("80", None, None)]).expect("connect");
                        let address = (up.ip(), up.ports[0].host_port);
                        (networks, up, address)
                    })
                    .expect("in")
                })
            })
            .collect();
        let all: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let mut addresses: Vec<Ipv4Addr> = all.iter().map(|(_, _, (ip, _))| *ip).collect();
        let mut ports: Vec<u16> = all.iter().map(|(_, _, (_, port))| *port).collect();
        addresses.sort_unstable();
        addresses.dedup();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!((addresses.len(), ports.len()), (100, 100));
        for (networks, up, _) in &all {
            networks.release(&up.id).expect("release");
        }
        assert_eq!((interfaces(), tables()), (Vec::new(), Vec::new()));
    });
}

#[test]
fn rules_that_somebody_flushed_come_back() {
    on_a_machine(|root| {
        let networks = root.networks("");
        let web = run(&networks, &["bridge"], &[publish("80", None, Some(8080))]).expect("web");
        web.serve(80);
        let mut socket = Socket::netfilter().expect("a socket");
        let mut batch = sys::netlink::nft::Batch::new();
        batch.delete_table(sys::netlink::nft::INET, "cauldron");
        socket.commit(batch).expect("flush");
        assert!(is_closed(at(Ipv4Addr::LOCALHOST, 8080)));
        let _next = run(&networks, &["bridge"], &[]).expect("the next one");
        assert!(ask(at(Ipv4Addr::LOCALHOST, 8080)).is_ok());
    });
}

#[test]
fn a_firewall_that_drops_what_it_does_not_know_lets_us_through() {
    use sys::netlink::nft::{Batch, Expression, Hook, IPV4, META_IN, META_OUT, Verdict};
    on_a_machine(|root| {
        // As dockerd leaves it, and with its own rule at the end that drops all.
        let mut socket = Socket::netfilter().expect("a socket");
        let mut batch = Batch::new();
        batch.table(IPV4, "filter");
        batch.chain(IPV4, "filter", "FORWARD", Some(Hook { kind: "filter", number: 2, priority: 0 }));
        batch.chain(IPV4, "filter", "DOCKER-USER", None);
        let jump = [Expression::Verdict(Verdict::Jump("DOCKER-USER"))];
        batch.rule(IPV4, ("filter", "FORWARD"), &jump, false, "");
        batch.rule(IPV4, ("filter", "FORWARD"), &[Expression::Verdict(Verdict::Drop)], false, "");
        socket.commit(batch).expect("rules");
        let _ = (META_IN, META_OUT);
        let lan = neighbour();
        let networks = root.networks("");
        let web = run(&networks, &["bridge"], &[publish("80", None, Some(8080))]).expect("web");
        web.serve(80);
        let host = at(Ipv4Addr::new(192, 0, 2, 1), 8080);
        assert!(sys::netlink::within(lan.as_fd(), || ask(host)).expect("in").is_ok());
        let client = run(&networks, &["bridge"], &[]).expect("client");
        assert!(client.inside(|| ask(at(web.ip(), 80))).is_ok());
        networks.release(&web.id).expect("release");
        networks.release(&client.id).expect("release");
        let left =
            socket.rules_with_comment(IPV4, "filter", "DOCKER-USER", "cauldron cauldron0").expect("rules");
        assert!(left.is_empty());
    });
}

#[test]
fn the_default_network_moves_out_of_the_way() {
    on_a_machine(|root| {
        let networks = root.networks("");
        let first = run(&networks, &["bridge"], &[]).expect("first");
        networks.release(&first.id).expect("release");
        let mut socket = Socket::route().expect("a socket");
        socket.request(vec![route::new_bridge("vpn0", [2, 0, 0, 0, 0, 9], 1500)]).expect("a bridge");
        let link = socket.link("vpn0").expect("a link").expect("there").index;
        socket
            .request(vec![route::new_address(link, Ipv4Addr::new(10, 88, 7, 1).into(), 24)])
            .expect("an address");
        let second = run(&networks, &["bridge"], &[]).expect("second");
        assert_eq!(second.ip(), Ipv4Addr::new(10, 89, 0, 2));
        assert_eq!(networks.get("bridge").expect("bridge").subnets[0].net.to_string(), "10.89.0.0/16");
    });
}
