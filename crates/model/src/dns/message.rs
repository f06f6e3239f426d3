//! DNS messages as far as a resolver in the middle needs them: RFC 1035 section 4, and the size that EDNS gives (RFC 6891).
//! Everything here comes from a container or from a name server: nothing is believed.

use std::net::IpAddr;

/// Bytes of a query that are read. One question and its options need some 300.
pub const QUERY_BYTES: usize = 4096;
/// Bytes of an answer over UDP to a client that says nothing of sizes.
pub const PLAIN_BYTES: usize = 512;
/// Bytes of an answer over UDP at most, whatever the client says.
pub const EDNS_BYTES: usize = 4096;

/// Query types and classes.
pub const A: u16 = 1;
/// Reverse look-up.
pub const PTR: u16 = 12;
/// IPv6 address.
pub const AAAA: u16 = 28;
/// EDNS.
const OPT: u16 = 41;
/// Incremental transfer.
pub const IXFR: u16 = 251;
/// Transfer.
pub const AXFR: u16 = 252;
/// Every type, or every class.
pub const ANY: u16 = 255;
/// The class `IN`.
pub const INTERNET: u16 = 1;

const HEADER: usize = 12;
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;

/// A response code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Answered.
    Success = 0,
    /// No server answers.
    ServerFailure = 2,
    /// Not this kind of query.
    NotImplemented = 4,
    /// Not this one.
    Refused = 5,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// TTL in seconds, and the address.
    Address(u32, IpAddr),
    /// TTL in seconds, and the name that a reverse look-up finds.
    Name(u32, String),
}

/// A query with one question.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// The name asked for, without its last dot. Where a label holds a dot or no UTF-8, the name is one that nobody has.
    pub name: String,
    /// The type asked for.
    pub kind: u16,
    /// The class.
    pub class: u16,
    /// Bytes of an answer over UDP that the client takes; `None` without EDNS.
    pub edns: Option<u16>,
    question_end: usize,
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The name at `at` and where it ends. A question's name is never compressed.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let start = at;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return (at - start <= 255).then_some((text, at));
        }
        let label = bytes.get(at..at + length).filter(|_| length < 64)?;
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(&String::from_utf8_lossy(label).replace('.', "\u{fffd}"));
        at += length;
    }
}

/// Where the name at `at` ends, compressed or not.
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*bytes.get(at)?) {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length if length < 64 => at += 1 + length,
            _ => return None,
        }
    }
}

/// The payload size of the OPT record among these records, if there is one.
fn edns(bytes: &[u8], mut at: usize, records: u16) -> Option<u16> {
    for _ in 0..records {
        at = skip_name(bytes, at)?;
        if number(bytes, at)? == OPT {
            return number(bytes, at + 2);
        }
        at += 10 + usize::from(number(bytes, at + 8)?);
    }
    None
}

impl<'a> Query<'a> {
    /// Takes a query apart; `None` for what is none: answers (which must never be answered), several questions, rubbish.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEADER || bytes[2] & RESPONSE != 0 || number(bytes, 4)? != 1 {
            return None;
        }
        let (name, end) = name(bytes, HEADER)?;
        let (kind, class) = (number(bytes, end)?, number(bytes, end + 2)?);
        let records = number(bytes, 6)?.saturating_add(number(bytes, 8)?).saturating_add(number(bytes, 10)?);
        Some(Self { bytes, name, kind, class, edns: edns(bytes, end + 4, records), question_end: end + 4 })
    }
    /// The kind of operation: 0 is a plain query.
    pub fn opcode(&self) -> u8 {
        self.bytes[2] >> 3 & 0xf
    }
    /// Bytes of an answer over UDP.
    pub fn room(&self) -> usize {
        self.edns.map_or(PLAIN_BYTES, |size| usize::from(size).clamp(PLAIN_BYTES, EDNS_BYTES))
    }
    /// An answer in at most `room` bytes; what does not fit is left out and the answer marked as truncated.
    pub fn reply(&self, code: Code, records: &[Record], room: usize) -> Vec<u8> {
        let mut answer = self.bytes[..self.question_end].to_vec();
        answer[2] = RESPONSE | self.bytes[2] & (0x78 | RECURSION_DESIRED);
        answer[3] = RECURSION_AVAILABLE | code as u8;
        answer[6..HEADER].fill(0);
        let room = if self.edns.is_some() { room.saturating_sub(11) } else { room };
        let mut count: u16 = 0;
        for record in records {
            let before = answer.len();
            put(&mut answer, record);
            if answer.len() > room || count == u16::MAX {
                answer.truncate(before);
                answer[2] |= TRUNCATED;
                break;
            }
            count += 1;
        }
        answer[6..8].copy_from_slice(&count.to_be_bytes());
        if self.edns.is_some() {
            // Root name, type, our own size, no flags, no options.
            let [high, low] = (EDNS_BYTES as u16).to_be_bytes();
            answer.extend_from_slice(&[0, 0, OPT as u8, high, low, 0, 0, 0, 0, 0, 0]);
            answer[11] = 1;
        }
        answer
    }
    /// The empty answer that says: ask again over TCP.
    pub fn truncated(&self) -> Vec<u8> {
        let mut answer = self.reply(Code::Success, &[], PLAIN_BYTES);
        answer[2] |= TRUNCATED;
        answer
    }
    /// Whether this is an answer to it: same identifier, same question (which a server that failed may leave out).
    pub fn is_answered_by(&self, answer: &[u8]) -> bool {
        let question = HEADER..self.question_end;
        let same = || {
            answer
                .get(question.clone())
                .is_some_and(|theirs| theirs.eq_ignore_ascii_case(&self.bytes[question]))
        };
        answer.len() >= HEADER
            && answer[..2] == self.bytes[..2]
            && answer[2] & RESPONSE != 0
            && match number(answer, 4) {
                Some(1) => same(),
                Some(0) => answer[3] & 0xf != 0,
                _ => false,
            }
    }
}

/// Whether a server's answer says that it could not, so that another one may be asked: SERVFAIL, NOTIMP or REFUSED.
pub fn is_failure(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| matches!(flags & 0xf, 2 | 4 | 5))
}

fn put(answer: &mut Vec<u8>, record: &Record) {
    let (kind, ttl, data) = match record {
        Record::Address(ttl, IpAddr::V4(ip)) => (A, ttl, ip.octets().to_vec()),
        Record::Address(ttl, IpAddr::V6(ip)) => (AAAA, ttl, ip.octets().to_vec()),
        Record::Name(ttl, name) => (PTR, ttl, encode(name)),
    };
    // The question's name, by its place.
    answer.extend_from_slice(&[0xc0, HEADER as u8]);
    answer.extend_from_slice(&kind.to_be_bytes());
    answer.extend_from_slice(&INTERNET.to_be_bytes());
    answer.extend_from_slice(&ttl.to_be_bytes());
    // Below 256: an address, or a name.
    answer.extend_from_slice(&(data.len() as u16).to_be_bytes());
    answer.extend_from_slice(&data);
}

/// A name as labels; one that is too long is cut.
fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        if bytes.len() + label.len() + 2 > 255 {
            break;
        }
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A query.
    pub fn question(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
        bytes.extend(encode(name));
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&INTERNET.to_be_bytes());
        if let Some(size) = edns {
            bytes.extend_from_slice(&[0, 0, 41]);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend_from_slice(&[0; 6]);
        }
        bytes
    }

    /// The code of an answer and its records.
    pub fn texts(answer: &[u8]) -> Vec<String> {
        let mut all = vec![(answer[3] & 0xf).to_string()];
        let mut at = skip_name(answer, HEADER).expect("a question") + 4;
        for _ in 0..number(answer, 6).expect("a count") {
            at = skip_name(answer, at).expect("a name");
            let length = usize::from(number(answer, at + 8).expect("a length"));
            let data = &answer[at + 10..at + 10 + length];
            all.push(match number(answer, at).expect("a type") {
                A => IpAddr::from(<[u8; 4]>::try_from(data).expect("four bytes")).to_string(),
                AAAA => IpAddr::from(<[u8; 16]>::try_from(data).expect("sixteen bytes")).to_string(),
                _ => name(answer, at + 10).expect("a name").0,
            });
            at += 10 + length;
        }
        all
    }

    #[test]
    fn questions_are_read() {
        let bytes = question("Web.Example.org", AAAA, Some(1232));
        let query = Query::parse(&bytes).expect("a query");
        assert_eq!((query.name.as_str(), query.kind, query.class), ("Web.Example.org", AAAA, INTERNET));
        assert_eq!((query.edns, query.room()), (Some(1232), 1232));
        let plain = question("", A, None);
        let root = Query::parse(&plain).expect("a query");
        assert_eq!((root.name.as_str(), root.room()), ("", 512));
        let mut dotted = question("abc", A, None);
        dotted[14] = b'.';
        assert_eq!(Query::parse(&dotted).expect("a query").name, "a\u{fffd}c");
    }

    #[test]
    fn rubbish_is_no_query() {
        let whole = question("web.example.org", A, None);
        for length in 0..whole.len() {
            assert!(Query::parse(&whole[..length]).is_none(), "{length} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            Query::parse(&bytes).is_some()
        };
        assert!(!with(2, 0x81), "an answer");
        assert!(!with(5, 2), "two questions");
        assert!(!with(5, 0), "no question");
        assert!(!with(12, 0xc0), "a compressed question");
        assert!(!with(12, 64), "a label of a reserved kind");
        let long = vec!["a".repeat(63); 4].join(".");
        let mut bytes = whole[..12].to_vec();
        for label in long.split('.') {
            bytes.push(63);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
        assert!(Query::parse(&bytes).is_none(), "a name of 257 bytes");
    }

    #[test]
    fn every_byte_may_be_anything() {
        let whole = question("web", A, Some(512));
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                if let Some(query) = Query::parse(&bytes) {
                    assert!(query.reply(Code::Success, &[], query.room()).len() <= PLAIN_BYTES);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let records: Vec<_> =
            (0..100).map(|last| Record::Address(1, IpAddr::from([10, 0, 0, last]))).collect();
        for (edns, size) in [(None, 512), (Some(600), 600), (Some(100), 512)] {
            let bytes = question("web", A, edns);
            let query = Query::parse(&bytes).expect("a query");
            let answer = query.reply(Code::Success, &records, query.room());
            assert!(answer.len() <= size && answer.len() + 16 > size, "{} of {size}", answer.len());
            assert_eq!(answer[2] & TRUNCATED, TRUNCATED);
            assert_eq!(answer[11], u8::from(edns.is_some()));
        }
        let bytes = question("web", A, None);
        let query = Query::parse(&bytes).expect("a query");
        let whole = query.reply(Code::Success, &records, 65_535);
        assert_eq!((texts(&whole).len(), whole[2] & TRUNCATED), (101, 0));
        assert_eq!(query.truncated()[2], RESPONSE | TRUNCATED | RECURSION_DESIRED);
    }

    #[test]
    fn only_the_answer_to_a_query_is_one() {
        let bytes = question("web", A, None);
        let query = Query::parse(&bytes).expect("a query");
        let answer = query.reply(Code::Success, &[], 512);
        assert!(query.is_answered_by(&answer));
        let with = |at: usize, byte: u8| {
            let mut bytes = answer.clone();
            bytes[at] = byte;
            query.is_answered_by(&bytes)
        };
        assert!(with(13, b'W'), "a server may change the case");
        assert!(!with(0, 0) && !with(2, 1) && !with(13, b'x'));
        assert!(!query.is_answered_by(&answer[..11]));
        let failure = [0x12, 0x34, 0x81, 0x82, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(query.is_answered_by(&failure) && is_failure(&failure));
        assert!(!is_failure(&answer) && !is_failure(&[]));
    }
}
