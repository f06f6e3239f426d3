//! The resolver at 127.0.0.11, asked from inside a container's network namespace; name servers are the test's own.

use super::fixture::*;
use model::ContainerId;
use model::bundle::Namespace;
use model::container::HostPath;
use model::dns::{Config, Network, Server, zone};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Name and test.
pub const ALL: &[(&str, fn())] = &[
    ("names_come_from_zones", names_come_from_zones),
    ("names_are_asked_of_servers", names_are_asked_of_servers),
    ("name_servers_take_turns", name_servers_take_turns),
    ("name_servers_inside", name_servers_inside),
    ("names_survive_rubbish_and_floods", names_survive_rubbish_and_floods),
    ("resolver_comes_later", resolver_comes_later),
];

const A: u16 = 1;
const AAAA: u16 = 28;
const FAILURE: u8 = 2;

/// A running container with a resolver.
struct Place {
    container: Box_,
    netns: OwnedFd,
}

fn write(path: PathBuf, bytes: &[u8]) {
    sys::fs::replace_file(path, bytes, 0o600, false).unwrap();
}

impl Place {
    fn new(config: Option<Config>) -> Self {
        let container = Box_::sh("sleep 1000").with(|bundle| bundle.namespaces.net = Namespace::Passed);
        std::fs::create_dir_all(container.run_dir()).unwrap();
        let place = Self { container, netns: sys::netlink::new_namespace().unwrap() };
        if let Some(config) = config {
            place.configure(config);
        }
        let netns = place.netns.try_clone().unwrap();
        runtime::spawn(&place.container.bundle.run_dir.0)
            .unwrap()
            .prepare(&place.container.bundle, Some(netns))
            .unwrap()
            .start()
            .unwrap();
        place
    }
    /// Its network is always the same.
    fn configure(&self, config: Config) {
        let networks = vec![Network { name: "back".into(), zone: HostPath(self.zone()) }];
        let config = Config { networks, ..config };
        write(runtime::resolver_path(self.container.run_dir()), &serde_json::to_vec(&config).unwrap());
    }
    fn zone(&self) -> PathBuf {
        self.container.dir.join("zone")
    }
    fn member(&self, digit: u8, ip: [u8; 4], names: &[&str]) {
        let id = ContainerId::from_bytes([digit; 32]);
        let line = zone::line(&id, &[IpAddr::from(ip)], names.iter().copied());
        let now = std::fs::read_to_string(self.zone()).unwrap_or_default();
        write(self.zone(), zone::with(&now, &id, Some(&line)).as_bytes());
    }
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        sys::netlink::within(self.netns.as_fd(), work).unwrap()
    }
    fn client(&self) -> UdpSocket {
        self.inside(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            socket
        })
    }
    /// The answer over UDP: its code, and the last four bytes of each record where it is an address.
    fn ask(&self, name: &str, kind: u16) -> (u8, Vec<IpAddr>) {
        let client = self.client();
        client.send(&query(name, kind)).unwrap();
        addresses(&receive(&client))
    }
    fn ask_stream(&self, name: &str) -> (u8, Vec<IpAddr>) {
        let mut stream = self.inside(|| TcpStream::connect("127.0.0.11:53")).unwrap();
        // Two on one connection.
        for _ in 0..2 {
            put(&mut stream, &query(name, A));
        }
        assert_eq!(take(&mut stream), take(&mut stream), "the same answer twice");
        put(&mut stream, &query(name, A));
        addresses(&take(&mut stream))
    }
}

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1u16.to_be_bytes());
    bytes
}

fn receive(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = client.recv(&mut buffer).expect("an answer");
    buffer.truncate(length);
    buffer
}

fn put(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(&[&(message.len() as u16).to_be_bytes(), message].concat()).unwrap();
}

fn take(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).expect("all of it");
    message
}

fn question_end(message: &[u8]) -> usize {
    12 + message[12..].iter().position(|byte| *byte == 0).unwrap() + 5
}

/// Records with compressed names and four bytes of data.
fn addresses(answer: &[u8]) -> (u8, Vec<IpAddr>) {
    let count = usize::from(u16::from_be_bytes([answer[6], answer[7]]));
    let records = answer[question_end(answer)..].chunks(16).take(count);
    let ips = records.map(|record| IpAddr::from(<[u8; 4]>::try_from(&record[12..16]).unwrap()));
    (answer[3] & 15, ips.collect())
}

/// What a name server of the test's answers.
fn answer(query: &[u8], code: u8, count: u16) -> Vec<u8> {
    let mut answer = query[..question_end(query)].to_vec();
    answer[2] = 0x81;
    answer[3] = 0x80 | code;
    answer[6..8].copy_from_slice(&count.to_be_bytes());
    for last in 0..count {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, last as u8]);
    }
    answer
}

/// A name server: both protocols on one port. `many` over TCP has a hundred addresses and one bit over UDP; `forged` is preceded
/// by answers that are none; every other name has one address, or the code.
fn serve(code: u8) -> Server {
    let (datagrams, listener) = loop {
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(listener) = TcpListener::bind(datagrams.local_addr().unwrap()) {
            break (datagrams, listener);
        }
    };
    let address = datagrams.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let query = &buffer[..length];
            let name = String::from_utf8_lossy(query).into_owned();
            if name.contains("forged") {
                let mut other = answer(query, 0, 1);
                other[0] ^= 1;
                datagrams.send_to(&other, from).unwrap();
                datagrams.send_to(&query[..8], from).unwrap();
            }
            let reply = if name.contains("many") {
                answer(query, 0, 100)
            } else {
                answer(query, code, u16::from(code == 0))
            };
            datagrams.send_to(&reply, from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let query = take(&mut stream);
            let many = String::from_utf8_lossy(&query).contains("many");
            put(&mut stream, &answer(&query, code, if many { 100 } else { u16::from(code == 0) }));
        }
    });
    Server { address, inside: false }
}

/// A port of the host's where nobody listens.
fn nobody() -> Server {
    let address: SocketAddr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Server { address, inside: false }
}

fn outside(servers: Vec<Server>) -> Option<Config> {
    Some(Config { servers, external: true, ..Config::default() })
}

fn names_come_from_zones() {
    let place = Place::new(Some(Config::default()));
    // Nothing is known, and nobody may be asked.
    assert_eq!(place.ask("web", A), (FAILURE, vec![]));
    place.member(1, [10, 1, 0, 2], &["web", "www"]);
    place.member(2, [10, 1, 0, 3], &["other", "www"]);
    assert_eq!(place.ask("WEB", A), (0, vec![IpAddr::from([10, 1, 0, 2])]));
    assert_eq!(place.ask("web", AAAA), (0, vec![]));
    assert_eq!(place.ask_stream("web.back"), (0, vec![IpAddr::from([10, 1, 0, 2])]));
    let mut both = place.ask("www", A).1;
    both.sort();
    assert_eq!(both, [IpAddr::from([10, 1, 0, 2]), IpAddr::from([10, 1, 0, 3])]);
    // A new address counts at once.
    place.member(1, [10, 1, 0, 9], &["web"]);
    assert_eq!(place.ask("web", A), (0, vec![IpAddr::from([10, 1, 0, 9])]));
    // Port 53 is the container's own.
    place.inside(|| {
        let datagrams = UdpSocket::bind("0.0.0.0:53").expect("UDP port 53 is free");
        datagrams.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _listener = TcpListener::bind("0.0.0.0:53").expect("TCP port 53 is free");
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"hello", "127.0.0.1:53").unwrap();
        assert_eq!(receive(&datagrams), b"hello");
    });
    assert_eq!(place.ask("web", A).0, 0);
}

fn names_are_asked_of_servers() {
    let place = Place::new(outside(vec![serve(0)]));
    let one = (0, vec![IpAddr::from([192, 0, 2, 0])]);
    assert_eq!(place.ask("example.org", A), one);
    assert_eq!(place.ask("forged.example.org", A), one, "only the true answer counts");
    assert_eq!(place.ask_stream("example.org"), one);
    // More than the client takes: it is told to come again over TCP, and gets all.
    let client = place.client();
    client.send(&query("many.example.org", A)).unwrap();
    let cut = receive(&client);
    assert_eq!((cut[2] & 2, cut.len() <= 512), (2, true));
    assert_eq!(place.ask_stream("many.example.org").1.len(), 100);
    // A name of a container is never asked outside.
    place.member(1, [10, 1, 0, 2], &["web"]);
    assert_eq!(place.ask("web", AAAA), (0, vec![]));
}

fn name_servers_take_turns() {
    let one = (0, vec![IpAddr::from([192, 0, 2, 0])]);
    let place = Place::new(outside(vec![nobody(), serve(5), serve(0)]));
    assert_eq!(place.ask("example.org", A), one);
    assert_eq!(place.ask_stream("example.org"), one);
    // What the last one says counts, whatever it is; where none is there, that is said.
    place.configure(Config { servers: vec![nobody(), serve(5)], external: true, ..Config::default() });
    assert_eq!(place.ask("example.org", A), (5, vec![]));
    place.configure(Config { servers: vec![nobody(), nobody()], external: true, ..Config::default() });
    assert_eq!(place.ask("example.org", A), (FAILURE, vec![]));
    assert_eq!(place.ask_stream("example.org"), (FAILURE, vec![]));
    // One that is silent is waited for, once.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Server { address: silent.local_addr().unwrap(), inside: false };
    place.configure(Config { servers: vec![server, serve(0)], external: true, ..Config::default() });
    assert_eq!(place.ask("example.org", A), one);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut [0; 512]).is_ok(), "it was asked");
    assert_eq!(place.ask("example.org", A), one);
    assert!(silent.recv(&mut [0; 512]).is_err(), "it is not asked first again");
}

fn name_servers_inside() {
    let place = Place::new(Some(Config::default()));
    let mut server = place.inside(|| serve(0));
    place.configure(Config { servers: vec![server], external: true, ..Config::default() });
    assert_eq!(place.ask("example.org", A).0, FAILURE, "not on the host's loopback");
    server.inside = true;
    place.configure(Config { servers: vec![server], external: true, ..Config::default() });
    assert_eq!(place.ask("example.org", A), (0, vec![IpAddr::from([192, 0, 2, 0])]));
}

fn names_survive_rubbish_and_floods() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = Server { address: silent.local_addr().unwrap(), inside: false };
    let place = Place::new(outside(vec![server]));
    place.member(1, [10, 1, 0, 2], &["web"]);
    let client = place.client();
    let mut back = query("web", A);
    back[2] |= 0x80;
    let long = vec![1; 9000];
    for rubbish in [&b""[..], b"x", &[0xff; 600], &query("web", A)[..15], &back, &long] {
        client.send(rubbish).unwrap();
    }
    client.send(&query("web", A)).unwrap();
    assert_eq!(
        addresses(&receive(&client)),
        (0, vec![IpAddr::from([10, 1, 0, 2])]),
        "the first and only answer"
    );
    let mut connection = place.inside(|| TcpStream::connect("127.0.0.11:53")).unwrap();
    connection.write_all(&[0xff; 64]).unwrap();
    assert!(connection.read(&mut [0; 1]).map_or(true, |length| length == 0), "it is closed");
    // No more than 128 queries are under way: the others fail at once, and names of containers do not suffer.
    for _ in 0..200 {
        client.send(&query("example.org", A)).unwrap();
    }
    for _ in 128..200 {
        assert_eq!(addresses(&receive(&client)), (FAILURE, vec![]));
    }
    assert_eq!(place.ask("web", A).0, 0);
    let open = std::fs::read_dir(format!("/proc/{}/fd", monitor(&place))).unwrap().count();
    assert!(open < 160, "{open} descriptors");
}

fn monitor(place: &Place) -> i32 {
    runtime::live(place.container.run_dir()).unwrap().expect("it runs").monitor_pid
}

fn resolver_comes_later() {
    let place = Place::new(None);
    place.member(1, [10, 1, 0, 2], &["web"]);
    place.configure(Config::default());
    runtime::resolve(place.container.run_dir()).unwrap();
    assert_eq!(place.ask("web", A), (0, vec![IpAddr::from([10, 1, 0, 2])]));
    // Twice is as good as once.
    runtime::resolve(place.container.run_dir()).unwrap();
    assert_eq!(place.ask("web", A).0, 0);
}
