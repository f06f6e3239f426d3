//! Questions to a container's resolver, and answers of other servers to them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::dns::{Config, Decision, Network, decide, message::Query};
use model::container::HostPath;

fuzz_target!(|bytes: &[u8]| {
    let (question, answer) = bytes.split_at(bytes.len() / 2);
    for bytes in [bytes, question] {
        let Some(query) = Query::parse(bytes) else { continue };
        let config = Config {
            networks: vec![Network { name: "net".to_owned(), zone: HostPath("/z".into()) }],
            ..Config::default()
        };
        let zone = "0123456789abcdef 10.0.0.2 web www\n";
        if let Decision::Reply(reply) = decide(&query, &config, &[zone], query.room(), 1) {
            assert!(reply.len() <= query.room() && query.is_answered_by(&reply));
        }
        let _ = (query.is_answered_by(answer), query.truncated(), query.opcode());
    }
});
