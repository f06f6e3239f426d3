//! nf_tables over nfnetlink (`include/uapi/linux/netfilter/nf_tables.h`): batches of tables, chains, rules, sets
//! and elements, and the few queries that are needed beside them.

use super::{APPEND, CREATE, HEADER, Message, Socket, attributes};
use rustix::net::{RecvFlags, netlink::SocketAddrNetlink};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const DELETE_CHAIN: u16 = 5;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;

/// `NFPROTO_INET`.
pub const INET: u8 = 1;
/// `NFPROTO_IPV4`.
pub const IPV4: u8 = 2;
/// `NFPROTO_IPV6`.
pub const IPV6: u8 = 10;

/// Data types as userspace numbers them: they only matter to whoever lists the set.
pub mod datatype {
    /// `ipv4_addr`.
    pub const IPV4: u32 = 7;
    /// `ipv6_addr`.
    pub const IPV6: u32 = 8;
    /// `inet_proto`.
    pub const PROTOCOL: u32 = 12;
    /// `inet_service`.
    pub const PORT: u32 = 13;
    /// `ifname`.
    pub const INTERFACE: u32 = 41;
    /// A concatenation.
    pub fn concat(parts: &[u32]) -> u32 {
        parts.iter().fold(0, |all, part| all << 6 | part)
    }
}

/// An interface name as a key: padded to 16 bytes.
pub fn interface(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    let length = name.len().min(15);
    key[..length].copy_from_slice(&name.as_bytes()[..length]);
    key
}

/// Where a base chain hooks in.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `NF_INET_*`: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub number: u32,
    /// Lower is earlier.
    pub priority: i32,
}

/// A set or, with data, a map.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type and length of a key.
    pub key: (u32, u32),
    /// Type and length of the data.
    pub data: Option<(u32, u32)>,
    /// Keys are ranges.
    pub interval: bool,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Key, each part padded to four bytes.
    pub key: Vec<u8>,
    /// Data of a map.
    pub data: Option<Vec<u8>>,
    /// The (exclusive) end of a range.
    pub end: bool,
}

/// What a rule does when all of its matches hold.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// `NF_DROP`.
    Drop,
    /// `NF_ACCEPT`.
    Accept,
    /// Back to the calling chain, or the policy.
    Return,
    /// To another chain and back.
    Jump(&'a str),
}

/// One expression of a rule. Registers: 1 to 4 are 16 bytes wide, 8 to 23 are the same in steps of four.
#[derive(Clone, Copy, Debug)]
pub enum Expression<'a> {
    /// Loads packet metadata (`NFT_META_*`).
    Meta(u32, u32),
    /// Loads from the packet: base (1 network, 2 transport header), offset, length, register.
    Payload(u32, u32, u32, u32),
    /// Writes into the packet's transport header: offset, length, register, and where its checksum is.
    Write(u32, u32, u32, u32),
    /// Compares a register: equal, or not.
    Compare(u32, bool, &'a [u8]),
    /// Loads conntrack data (`NFT_CT_*`) into a register.
    Conntrack(u32, u32),
    /// Masks a register of four bytes.
    Mask(u32, u32),
    /// Masks a register of one byte.
    MaskByte(u32, u8),
    /// Loads the route type of the destination address.
    DestinationType(u32),
    /// Looks a register up in a set; of a map, the data goes to the second register.
    Lookup(&'a str, u32, Option<u32>),
    /// Loads these bytes into a register.
    Load(u32, &'a [u8]),
    /// Destination NAT: family, address register, port register.
    Dnat(u8, u32, u32),
    /// Source NAT to the address of the outgoing interface.
    Masquerade,
    /// A verdict.
    Verdict(Verdict<'a>),
}

/// `NFT_META_IIFNAME`.
pub const META_IN: u32 = 6;
/// `NFT_META_OIFNAME`.
pub const META_OUT: u32 = 7;
/// `NFT_META_NFPROTO`.
pub const META_FAMILY: u32 = 15;
/// `NFT_META_L4PROTO`.
pub const META_PROTOCOL: u32 = 16;
/// `NFT_CT_STATE`.
pub const CT_STATE: u32 = 0;
/// `NFT_CT_STATUS`.
pub const CT_STATUS: u32 = 2;

impl Expression<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) => "meta",
            Self::Payload(..) | Self::Write(..) => "payload",
            Self::Compare(..) => "cmp",
            Self::Conntrack(..) => "ct",
            Self::Mask(..) | Self::MaskByte(..) => "bitwise",
            Self::DestinationType(_) => "fib",
            Self::Lookup(..) => "lookup",
            Self::Dnat(..) => "nat",
            Self::Masquerade => "masq",
            Self::Load(..) | Self::Verdict(_) => "immediate",
        }
    }
    fn fill(&self, to: &mut Message) {
        match *self {
            Self::Meta(key, register) | Self::Conntrack(key, register) => {
                to.put_be32(1, register).put_be32(2, key);
            }
            Self::Payload(base, offset, length, register) => {
                to.put_be32(1, register).put_be32(2, base).put_be32(3, offset).put_be32(4, length);
            }
            Self::Write(offset, length, register, checksum) => {
                to.put_be32(5, register).put_be32(2, 2).put_be32(3, offset).put_be32(4, length);
                // NFT_PAYLOAD_CSUM_INET
                to.put_be32(6, 1).put_be32(7, checksum);
            }
            Self::Compare(register, equal, data) => {
                to.put_be32(1, register).put_be32(2, u32::from(!equal));
                to.nest(3, |value| {
                    value.put(1, data);
                });
            }
            Self::Mask(register, mask) => {
                to.put_be32(1, register).put_be32(2, register).put_be32(3, 4);
                to.nest(4, |value| {
                    value.put(1, &mask.to_ne_bytes());
                });
                to.nest(5, |value| {
                    value.put(1, &[0; 4]);
                });
            }
            Self::MaskByte(register, mask) => {
                to.put_be32(1, register).put_be32(2, register).put_be32(3, 1);
                to.nest(4, |value| {
                    value.put(1, &[mask]);
                });
                to.nest(5, |value| {
                    value.put(1, &[0]);
                });
            }
            Self::DestinationType(register) => {
                to.put_be32(1, register).put_be32(2, 3).put_be32(3, 2);
            }
            Self::Lookup(set, source, data) => {
                to.put_text(1, set).put_be32(2, source);
                if let Some(register) = data {
                    to.put_be32(3, register);
                }
            }
            Self::Load(register, bytes) => {
                to.put_be32(1, register);
                to.nest(2, |data| {
                    data.put(1, bytes);
                });
            }
            Self::Dnat(family, address, port) => {
                to.put_be32(1, 1).put_be32(2, u32::from(family)).put_be32(3, address).put_be32(5, port);
            }
            Self::Masquerade => {}
            Self::Verdict(verdict) => {
                to.put_be32(1, 0);
                to.nest(2, |data| {
                    data.nest(2, |value| {
                        let (code, chain) = match verdict {
                            Verdict::Drop => (0i32, None),
                            Verdict::Accept => (1, None),
                            Verdict::Jump(chain) => (-3, Some(chain)),
                            Verdict::Return => (-5, None),
                        };
                        value.put(1, &code.to_be_bytes());
                        if let Some(chain) = chain {
                            value.put_text(2, chain);
                        }
                    });
                });
            }
        }
    }
}

fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, &[family, 0, 0, 0])
}

/// A transaction: all of it or nothing.
#[derive(Debug)]
pub struct Batch {
    messages: Vec<Message>,
    sets: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        let begin = Message::new(BATCH_BEGIN, 0, &[0, 0, 0, SUBSYSTEM as u8]);
        Self { messages: vec![begin], sets: 0 }
    }
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.len() == 1
    }
    /// Makes a table, if it is not there.
    pub fn table(&mut self, family: u8, name: &str) {
        let mut new = message(NEW_TABLE, CREATE, family);
        new.put_text(1, name).put_be32(2, 0);
        self.messages.push(new);
    }
    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, family: u8, name: &str) {
        let mut delete = message(DELETE_TABLE, 0, family);
        delete.put_text(1, name);
        self.messages.push(delete);
    }
    /// Makes a chain, if it is not there; base chains accept what falls through.
    pub fn chain(&mut self, family: u8, table: &str, name: &str, hook: Option<Hook>) {
        let mut new = message(NEW_CHAIN, CREATE, family);
        new.put_text(1, table).put_text(3, name);
        if let Some(hook) = hook {
            new.nest(4, |nest| {
                nest.put_be32(1, hook.number).put(2, &hook.priority.to_be_bytes());
            });
            new.put_be32(5, 1).put_text(7, hook.kind);
        }
        self.messages.push(new);
    }
    /// Makes a set, if it is not there.
    pub fn set(&mut self, family: u8, table: &str, set: &Set<'_>) {
        self.sets += 1;
        let mut new = message(NEW_SET, CREATE, family);
        let flags = if set.interval { 4 } else { 0 } | if set.data.is_some() { 8 } else { 0 };
        new.put_text(1, table).put_text(2, set.name).put_be32(3, flags);
        new.put_be32(4, set.key.0).put_be32(5, set.key.1);
        if let Some((kind, length)) = set.data {
            new.put_be32(6, kind).put_be32(7, length);
        }
        new.put_be32(10, self.sets);
        if set.key.0 == datatype::INTERFACE {
            // libnftnl's user data: type 0 is the key's byte order, 1 the machine's. Without it names are listed reversed.
            new.put(13, &[[0, 4].as_slice(), &1u32.to_ne_bytes()].concat());
        }
        self.messages.push(new);
    }
    /// Adds elements to a set.
    pub fn add(&mut self, family: u8, table: &str, set: &str, elements: &[Element]) {
        self.elements(NEW_ELEMENT, CREATE, family, table, set, elements);
    }
    /// Takes elements out of a set.
    pub fn remove(&mut self, family: u8, table: &str, set: &str, elements: &[Element]) {
        self.elements(DELETE_ELEMENT, 0, family, table, set, elements);
    }
    fn elements(&mut self, kind: u16, flags: u16, family: u8, table: &str, set: &str, elements: &[Element]) {
        // An attribute holds 64 KiB; an element of ours takes less than 100 bytes.
        for chunk in elements.chunks(256) {
            let mut new = message(kind, flags, family);
            new.put_text(1, table).put_text(2, set);
            new.nest(3, |list| chunk.iter().for_each(|element| put_element(list, element)));
            self.messages.push(new);
        }
    }
    /// Adds a rule: at the end of its chain, or `first`. `comment` finds it again.
    pub fn rule(
        &mut self,
        family: u8,
        (table, chain): (&str, &str),
        rule: &[Expression<'_>],
        first: bool,
        comment: &str,
    ) {
        let mut new = message(NEW_RULE, if first { CREATE } else { CREATE | APPEND }, family);
        new.put_text(1, table).put_text(2, chain);
        new.nest(4, |list| {
            for expression in rule {
                list.nest(1, |element| {
                    element.put_text(1, expression.name());
                    element.nest(2, |data| expression.fill(data));
                });
            }
        });
        if !comment.is_empty() {
            new.put(7, &comment_data(comment));
        }
        self.messages.push(new);
    }
    /// Deletes a rule by its handle.
    pub fn delete_rule(&mut self, family: u8, (table, chain): (&str, &str), handle: u64) {
        let mut delete = message(DELETE_RULE, 0, family);
        delete.put_text(1, table).put_text(2, chain).put(3, &handle.to_be_bytes());
        self.messages.push(delete);
    }
}

fn put_element(list: &mut Message, element: &Element) {
    list.nest(1, |one| {
        if element.end {
            one.put_be32(3, 1);
        }
        one.nest(1, |key| {
            key.put(1, &element.key);
        });
        if let Some(bytes) = &element.data {
            one.nest(2, |data| {
                data.put(1, bytes);
            });
        }
    });
}

/// libnftnl's user data: type 0 is a comment.
fn comment_data(comment: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

fn unless_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Socket {
    /// Carries out a transaction.
    ///
    /// # Errors
    /// The first that the kernel reports; nothing was changed then.
    pub fn commit(&mut self, mut batch: Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        batch.messages.push(Message::new(BATCH_END, 0, &[0, 0, 0, SUBSYSTEM as u8]));
        self.transact(batch.messages)
    }
    /// Whether a table exists.
    ///
    /// # Errors
    /// Those of netlink but `ENOENT`.
    pub fn has_table(&mut self, family: u8, name: &str) -> io::Result<bool> {
        let mut get = message(GET_TABLE, 0, family);
        get.put_text(1, name);
        Ok(unless_missing(self.query(get, false))?.is_some())
    }
    /// The names of a family's tables.
    ///
    /// # Errors
    /// Those of netlink.
    pub fn tables(&mut self, family: u8) -> io::Result<Vec<String>> {
        let replies = self.query(message(GET_TABLE, 0, family), true)?;
        let names = replies.iter().filter_map(|reply| {
            let (_, name) = attributes(reply.payload.get(4..)?).find(|(kind, _)| *kind == 1)?;
            Some(String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned())
        });
        Ok(names.collect())
    }
    /// A chain's policy (0 drop, 1 accept; chains that are no base chains accept), if it exists.
    ///
    /// # Errors
    /// Those of netlink but `ENOENT`.
    pub fn chain_policy(&mut self, family: u8, table: &str, chain: &str) -> io::Result<Option<u32>> {
        let mut get = message(GET_CHAIN, 0, family);
        get.put_text(1, table).put_text(3, chain);
        let Some(replies) = unless_missing(self.query(get, false))? else { return Ok(None) };
        let policy = replies.first().and_then(|reply| {
            let (_, value) = attributes(reply.payload.get(4..)?).find(|(kind, _)| *kind == 5)?;
            value.try_into().ok().map(u32::from_be_bytes)
        });
        Ok(Some(policy.unwrap_or(1)))
    }
    /// How many rules a chain has, if it exists.
    ///
    /// # Errors
    /// Those of netlink but `ENOENT`.
    pub fn chain_rules(&mut self, family: u8, table: &str, chain: &str) -> io::Result<Option<u32>> {
        let mut get = message(GET_CHAIN, 0, family);
        get.put_text(1, table).put_text(3, chain);
        let Some(replies) = unless_missing(self.query(get, false))? else { return Ok(None) };
        let rules = replies.first().and_then(|reply| {
            let (_, value) = attributes(reply.payload.get(4..)?).find(|(kind, _)| *kind == 6)?;
            value.try_into().ok().map(u32::from_be_bytes)
        });
        Ok(Some(rules.unwrap_or(0)))
    }
    /// The handles of a chain's rules that carry this comment.
    ///
    /// # Errors
    /// Those of netlink but `ENOENT`.
    pub fn rules_with_comment(
        &mut self,
        family: u8,
        table: &str,
        chain: &str,
        comment: &str,
    ) -> io::Result<Vec<u64>> {
        let mut get = message(GET_RULE, 0, family);
        get.put_text(1, table).put_text(2, chain);
        let wanted = comment_data(comment);
        let replies = unless_missing(self.query(get, true))?.unwrap_or_default();
        let handles = replies.iter().filter_map(|reply| {
            let all = || attributes(reply.payload.get(4..).unwrap_or(&[]));
            all().find(|(kind, value)| *kind == 7 && *value == wanted.as_slice())?;
            let (_, handle) = all().find(|(kind, _)| *kind == 3)?;
            handle.try_into().ok().map(u64::from_be_bytes)
        });
        Ok(handles.collect())
    }
    /// Whether a set has this key.
    ///
    /// # Errors
    /// Those of netlink but `ENOENT`.
    pub fn has_element(&mut self, family: u8, table: &str, set: &str, key: &[u8]) -> io::Result<bool> {
        let mut get = message(GET_ELEMENT, 0, family);
        get.put_text(1, table).put_text(2, set);
        let element = Element { key: key.to_vec(), data: None, end: false };
        get.nest(3, |list| put_element(list, &element));
        Ok(unless_missing(self.query(get, false))?.is_some())
    }
}

/// A subscription to what happens to the rules of the calling thread's network namespace (`NFNLGRP_NFTABLES`).
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
}

/// Something that happened to a table, a chain or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// It is gone; else it is new, or has changed.
    pub gone: bool,
    /// It is a chain itself, not a rule.
    pub is_chain: bool,
    /// The family.
    pub family: u8,
    /// The table.
    pub table: &'a [u8],
    /// The chain, or of the rule.
    pub chain: &'a [u8],
}

impl Watch {
    /// Bytes of one notification (`NLMSG_GOODSIZE`, include/linux/netlink.h).
    const BYTES: usize = 8 << 10;
    /// From the mask of groups: `NFNLGRP_NFTABLES` is the seventh.
    const GROUPS: u32 = 1 << 6;

    /// From now on.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`.
    pub fn new() -> io::Result<Self> {
        let socket = Socket::netfilter()?;
        rustix::net::bind(&socket.fd, &SocketAddrNetlink::new(0, Self::GROUPS))?;
        Ok(Self { socket })
    }
    /// Takes all that has been told since, without waiting, and whether `wanted` holds for any of it. What did not fit
    /// into the socket's buffer is taken for wanted.
    pub fn any(&self, wanted: impl Fn(Change<'_>) -> bool) -> bool {
        let mut bytes = [0u8; Self::BYTES];
        let mut found = false;
        loop {
            match rustix::net::recv(&self.socket.fd, bytes.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, count)) => {
                    found |= changes(&bytes[..count.min(Self::BYTES)]).any(&wanted);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => found = true,
                Err(_) => return found,
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.fd.as_fd()
    }
}

/// The changes in a datagram.
fn changes(mut bytes: &[u8]) -> impl Iterator<Item = Change<'_>> {
    std::iter::from_fn(move || {
        loop {
            let head = bytes.get(..HEADER)?;
            let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let kind = u16::from_ne_bytes([head[4], head[5]]);
            let payload = bytes.get(HEADER..length)?;
            bytes = bytes.get((length + 3) & !3..).unwrap_or(&[]);
            if let Some(change) = change(kind, payload) {
                return Some(change);
            }
        }
    })
}

fn change(kind: u16, payload: &[u8]) -> Option<Change<'_>> {
    let (gone, chain) = match kind.checked_sub(SUBSYSTEM << 8)? {
        NEW_TABLE => (false, None),
        DELETE_TABLE => (true, None),
        NEW_CHAIN => (false, Some(3)),
        DELETE_CHAIN => (true, Some(3)),
        NEW_RULE => (false, Some(2)),
        DELETE_RULE => (true, Some(2)),
        _ => return None,
    };
    let text = |wanted: u16| {
        let (_, value) = attributes(payload.get(4..)?).find(|(kind, _)| *kind == wanted)?;
        Some(value.strip_suffix(&[0]).unwrap_or(value))
    };
    Some(Change {
        gone,
        is_chain: chain == Some(3),
        family: *payload.first()?,
        table: text(1)?,
        chain: chain.and_then(text).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_hears_of_what_goes() {
        let namespace = crate::netlink::new_namespace().expect("a network namespace: this test needs root");
        crate::netlink::within(namespace.as_fd(), || {
            let watch = Watch::new().expect("a watch");
            let mut socket = Socket::netfilter().expect("a socket");
            let mut batch = Batch::new();
            batch.table(INET, "one");
            batch.chain(INET, "one", "inner", None);
            batch.rule(INET, ("one", "inner"), &[Expression::Verdict(Verdict::Accept)], false, "");
            socket.commit(batch).expect("a table");
            assert!(!watch.any(|change| change.gone));
            assert_eq!(socket.chain_rules(INET, "one", "inner").expect("asked"), Some(1));
            assert_eq!(socket.chain_rules(INET, "one", "other").expect("asked"), None);
            let mut batch = Batch::new();
            batch.delete_table(INET, "one");
            socket.commit(batch).expect("deleted");
            assert!(watch.any(|change| change.gone && change.table == b"one" && change.chain.is_empty()));
            assert!(!watch.any(|_| true), "told once");
        })
        .expect("inside");
    }

    #[test]
    fn notifications_are_read_defensively() {
        assert_eq!(changes(&[]).count(), 0);
        assert_eq!(changes(&[0xff; 64]).count(), 0);
        assert_eq!(changes(&[0; 64]).count(), 0);
    }
}
