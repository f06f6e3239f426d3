//! The container's resolver at 127.0.0.11: sockets inside its network namespace, held by the monitor, so that there is no process more.
//!
//! The sockets are on ports of the kernel's choice, and a small nf_tables table in the namespace (`ip cauldron-resolver`) leads
//! port 53 of that one address to them: a name server in the container may have port 53 of every address. What
//! `resolver.json` and the zones that it names say is looked up again whenever one of these files was replaced; nobody tells.
//! The rest is asked of name servers, from the host's namespace. Everything is bounded: queries under way, connections, bytes
//! and time; whoever floods the resolver floods itself.

mod file;
mod forward;
mod stream;

use model::dns::message::Query;
use model::dns::{self, Config, Decision};
use model::error::Context as _;
use model::{Error, Result, hosts};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;
use sys::netlink::nft::{self, Batch, Expression as Is, Hook};
use sys::process::namespace;

use self::file::Watched;
use self::forward::Forward;
use self::stream::Stream;
use super::poll::{self, EventFlags, Part, Poll, Token};
use crate::wire;

/// Queries that are read before anything else gets its turn.
const BURST: usize = 32;
/// Bytes of an answer over TCP.
const STREAM_BYTES: usize = 65_535;
const TABLE: &str = "cauldron-resolver";

/// Where a query came from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Datagram(SocketAddr),
    /// Place and number of a connection: the place may be another one's by then.
    Stream(usize, u64),
}

/// See above.
pub struct Resolver {
    config_file: Watched,
    config: Config,
    host: Watched,
    zones: Vec<Watched>,
    netns: OwnedFd,
    datagrams: UdpSocket,
    listener: TcpListener,
    streams: Vec<Option<Stream>>,
    forwards: Vec<Option<Forward>>,
    /// Numbers connections.
    serial: u64,
    /// Where the next of several addresses begins: a linear congruence.
    turn: u64,
    /// The name server that is asked first: the last one that answered.
    first: usize,
}

/// Does this inside a network namespace; this thread, the only one, comes back.
fn inside<T>(netns: &OwnedFd, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let ours = std::fs::File::open("/proc/self/ns/net").context(|| "open /proc/self/ns/net")?;
    sys::process::join(netns, namespace::NET).context(|| "join the container's network namespace")?;
    let done = work();
    sys::process::join(&ours, namespace::NET).context(|| "return to our network namespace")?;
    done
}

/// Leads port 53 of the resolver's address to its sockets: the port is rewritten on the way there and on the way back, without
/// connection tracking, which would keep an entry for each look-up. Redirections of the container's own (priority -100) come before,
/// so that they see port 53; and whatever tracks connections (-200) sees port 53 both ways.
fn redirect(udp: u16, tcp: u16) -> std::io::Result<()> {
    let mut batch = Batch::new();
    batch.table(nft::IPV4, TABLE);
    for (chain, priority) in [("there", -90), ("back", -300)] {
        batch.chain(nft::IPV4, TABLE, chain, Some(Hook { kind: "filter", number: 3, priority }));
    }
    let (address, domain) = (dns::ADDRESS.octets(), 53u16.to_be_bytes());
    // Protocol, port, and where in its header the checksum is.
    for (protocol, port, checksum) in [(17u8, udp, 6), (6, tcp, 16)] {
        let own = port.to_be_bytes();
        // Of the IP header the destination or the source, of the other header its port.
        for (chain, ip, at, from, to) in [("there", 16, 2, &domain, &own), ("back", 12, 0, &own, &domain)] {
            let rule = [
                Is::Payload(1, ip, 4, 1),
                Is::Compare(1, true, &address),
                Is::Meta(nft::META_PROTOCOL, 1),
                Is::Compare(1, true, &[protocol]),
                Is::Payload(2, at, 2, 1),
                Is::Compare(1, true, from),
                Is::Load(1, to),
                Is::Write(at, 2, 1, checksum),
            ];
            batch.rule(nft::IPV4, (TABLE, chain), &rule, false, "");
        }
    }
    sys::netlink::Socket::netfilter()?.commit(batch)
}

impl Resolver {
    /// Makes the sockets and the redirection.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn open(config: PathBuf, netns: &OwnedFd, poll: &Poll) -> Result<Self> {
        let any_port = |ip: Ipv4Addr| SocketAddr::from((ip, 0));
        let (datagrams, listener) = inside(netns, || {
            let what = || format!("listen on {}", dns::ADDRESS);
            let datagrams = UdpSocket::bind(any_port(dns::ADDRESS)).context(what)?;
            let listener = TcpListener::bind(any_port(dns::ADDRESS)).context(what)?;
            let udp = datagrams.local_addr().context(what)?.port();
            let tcp = listener.local_addr().context(what)?.port();
            redirect(udp, tcp)
                .context(|| format!("lead {}:53 to the resolver", dns::ADDRESS))
                .map_err(|error: Error| error.hint("names need nf_tables in the kernel"))?;
            Ok((datagrams, listener))
        })?;
        let watch = || "watch the resolver's sockets";
        datagrams.set_nonblocking(true).context(watch)?;
        listener.set_nonblocking(true).context(watch)?;
        poll.add(&datagrams, Token::Resolver(Part::Datagrams), poll::IN).context(watch)?;
        poll.add(&listener, Token::Resolver(Part::Listener), poll::IN).context(watch)?;
        Ok(Self {
            config_file: Watched::new(config),
            config: Config::default(),
            host: Watched::new(hosts::RESOLV_CONF.into()),
            zones: Vec::new(),
            netns: netns.try_clone().context(|| "copy a descriptor")?,
            datagrams,
            listener,
            streams: Vec::new(),
            forwards: Vec::new(),
            serial: 0,
            turn: 0,
            first: 0,
        })
    }
    /// A socket is ready.
    pub fn ready(&mut self, poll: &Poll, part: Part, flags: EventFlags) {
        match part {
            Part::Datagrams => self.read_datagrams(poll),
            Part::Listener => self.accept(poll),
            Part::Stream(at) => self.stream_ready(poll, at, flags),
            Part::Forward(at) => self.forward_ready(poll, at, flags),
        }
    }
    /// When something is overdue.
    pub fn deadline(&self) -> Option<Instant> {
        let forwards = self.forwards.iter().flatten().map(|forward| forward.deadline);
        let streams = self.streams.iter().flatten().map(|stream| stream.deadline);
        forwards.chain(streams).min()
    }
    /// Gives up what is overdue.
    pub fn on_time(&mut self, poll: &Poll, now: Instant) {
        for at in 0..self.forwards.len() {
            if self.forwards[at].as_ref().is_some_and(|forward| forward.deadline <= now) {
                self.next_server(poll, at);
            }
        }
        for stream in &mut self.streams {
            if stream.as_ref().is_some_and(|stream| stream.deadline <= now) {
                *stream = None;
            }
        }
    }
    fn read_datagrams(&mut self, poll: &Poll) {
        let mut buffer = [0; dns::message::QUERY_BYTES];
        for _ in 0..BURST {
            let Ok((length, from)) = self.datagrams.recv_from(&mut buffer) else { return };
            // A datagram that fills the buffer may have been cut.
            if length < buffer.len() {
                self.ask(poll, &buffer[..length], Origin::Datagram(from));
            }
        }
    }
    /// Reads what has been replaced.
    fn refresh(&mut self) {
        let changed = self.config_file.refresh();
        if changed {
            // A damaged file resolves nothing; it is ours, and replaced whole.
            self.config = wire::decode(self.config_file.text.as_bytes()).unwrap_or_default();
            let path = |network: &dns::Network| Watched::new(network.zone.0.clone());
            self.zones = self.config.networks.iter().map(path).collect();
            self.first = 0;
        }
        if self.config.host_servers && (self.host.refresh() || changed) {
            self.config.servers = hosts::name_servers(&self.host.text, hosts::Dns::default());
            self.first = 0;
        }
        for zone in &mut self.zones {
            zone.refresh();
        }
    }
    fn ask(&mut self, poll: &Poll, bytes: &[u8], origin: Origin) {
        let Some(query) = Query::parse(bytes) else { return };
        // For each: whoever was answered may know of a change that came after the one before.
        self.refresh();
        let room = match origin {
            Origin::Datagram(_) => query.room(),
            Origin::Stream(..) => STREAM_BYTES,
        };
        // A client asks for both kinds of address in turn: simply counting would always give the same one to each kind.
        self.turn = self.turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let zones: Vec<&str> = self.zones.iter().map(|zone| zone.text.as_str()).collect();
        match dns::decide(&query, &self.config, &zones, room, (self.turn >> 33) as usize) {
            Decision::Reply(answer) => self.answer(poll, origin, &answer),
            Decision::Forward => self.forward(poll, bytes, origin),
        }
    }
    fn answer(&mut self, poll: &Poll, origin: Origin, bytes: &[u8]) {
        match origin {
            Origin::Datagram(to) => {
                // A client that has gone, or whose buffer is full, asks again if it cares.
                let _ = self.datagrams.send_to(bytes, to);
            }
            Origin::Stream(at, serial) => self.answer_stream(poll, at, serial, bytes),
        }
    }
}
