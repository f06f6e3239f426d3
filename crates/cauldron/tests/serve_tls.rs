//! Mutual TLS between real clients and `cauldron serve`, with certificates of `cauldron tls`. Needs openssl, curl, and a
//! `docker` in PATH.

mod served;

use client::authority::{Authority, Order, Usage};
use served::{Place, Server, both};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Output, Stdio};

const DAY: i64 = 24 * 60 * 60;

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

fn serve(place: &Place, certificates: &str) -> Server {
    let file = |name: &str| place.text(&format!("{certificates}/{name}"));
    place.serve(&[
        "-H",
        "tcp://127.0.0.1:0",
        "--tlsverify",
        "--tlscacert",
        &file("ca.pem"),
        "--tlscert",
        &file("cert.pem"),
        "--tlskey",
        &file("key.pem"),
    ])
}

/// `docker ps` and `cauldron ps` with the certificates of a directory.
fn ask(place: &Place, server: &Server, certificates: &str) -> [Output; 2] {
    ["docker", env!("CARGO_BIN_EXE_cauldron")].map(|program| {
        place
            .command(program)
            .env("DOCKER_CERT_PATH", place.path(certificates))
            .args(["-H", &server.addresses[0], "--tlsverify", "ps", "-q"])
            .output()
            .unwrap()
    })
}

fn let_in(place: &Place, server: &Server, certificates: &str) {
    for output in ask(place, server, certificates) {
        assert!(output.status.success(), "{certificates}: {}", both(&output));
    }
}

fn refused(place: &Place, server: &Server, certificates: &str, text: &str) {
    for output in ask(place, server, certificates) {
        assert!(!output.status.success(), "{certificates} was let in");
        assert!(both(&output).to_lowercase().contains(text), "{certificates}: {}", both(&output));
    }
}

/// A connection that stays open between requests.
struct Open {
    child: std::process::Child,
    answers: std::io::BufReader<std::process::ChildStdout>,
}

impl Open {
    fn new(place: &Place, server: &Server, certificates: &str) -> Self {
        const SCRIPT: &str = "import http.client,ssl,sys\nhost,port,d=sys.argv[1:]\n\
            c=ssl.create_default_context(cafile=d+'/ca.pem')\nc.load_cert_chain(d+'/cert.pem',d+'/key.pem')\n\
            h=http.client.HTTPSConnection(host,int(port),context=c)\nh.connect()\nh.auto_open=0\n\
            for _ in sys.stdin:\n  try:\n    h.request('GET','/_ping')\n    r=h.getresponse()\n    r.read()\n    print(r.status,flush=True)\n  \
            except Exception:\n    print('closed',flush=True)\n";
        let (host, port) = server.addresses[0].trim_start_matches("tcp://").rsplit_once(':').unwrap();
        let mut child = place
            .command("python3")
            .args(["-c", SCRIPT, host, port, &place.text(certificates)])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let answers = std::io::BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }
    fn ask(&mut self) -> String {
        use std::io::{BufRead as _, Write as _};
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn only_good_certificates_of_the_right_kind_are_let_in() {
    let place = Place::new();
    place.ok(&["tls", "init", "--dir", &place.text("tls"), "--host", "engine.example"]);
    place.ok(&["tls", "init", "--dir", &place.text("other")]);
    place.ok(&["tls", "issue", "--dir", &place.text("tls"), "alice"]);
    let old = Order { name: "old".into(), usage: Usage::Client, hosts: Vec::new(), days: 1, dir: None };
    Authority::open(&place.path("tls")).unwrap().issue(&old, now() - 2 * DAY).unwrap();
    let server = serve(&place, "tls/server");
    let_in(&place, &server, "tls/client");
    let_in(&place, &server, "tls/alice");
    refused(&place, &server, "tls/old", "expired");
    // A server's certificate does not make a client.
    refused(&place, &server, "tls/server", "certificate");
    // Another authority's client does not even trust the server.
    refused(&place, &server, "other/client", "certificate");
    // One that does is not trusted by it: Go's clients do not even show a certificate of an authority that was not
    // asked for.
    std::fs::copy(place.path("tls/ca.pem"), place.path("other/client/ca.pem")).unwrap();
    refused(&place, &server, "other/client", "");

    let url = server.addresses[0].replace("tcp://", "https://") + "/_ping";
    let curl = |args: &[&str]| {
        place
            .command("curl")
            .args(["-sS", "--max-time", "30", "--cacert", &place.text("tls/ca.pem")])
            .args(args)
            .arg(&url)
            .output()
            .unwrap()
    };
    assert!(!curl(&[]).status.success(), "without a certificate");
    let own = [&*place.text("tls/alice/cert.pem"), &*place.text("tls/alice/key.pem")];
    assert_eq!(both(&curl(&["--cert", own[0], "--key", own[1]])), "OK");
    for (version, spoken) in [("-tls1", false), ("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)] {
        let output = place
            .command("openssl")
            .args(["s_client", "-connect", server.addresses[0].trim_start_matches("tcp://"), version])
            .args(["-cipher", "DEFAULT@SECLEVEL=0", "-cert", own[0], "-key", own[1]])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(!both(&output).contains("Cipher is (NONE)"), spoken, "{version}: {}", both(&output));
    }
}

#[test]
fn a_certificate_for_clients_does_not_make_a_server() {
    let place = Place::new();
    place.ok(&["tls", "init", "--dir", &place.text("tls")]);
    let server = serve(&place, "tls/client");
    refused(&place, &server, "tls/client", "certificate");
    // The right kind with another name.
    place.ok(&[
        "tls",
        "issue",
        "--dir",
        &place.text("tls"),
        "--server",
        "--host",
        "elsewhere.example",
        "elsewhere",
    ]);
    let server = serve(&place, "tls/elsewhere");
    refused(&place, &server, "tls/client", "certificate");
}

#[test]
fn revoked_certificates_are_refused_once_the_server_has_read_its_files_again() {
    let place = Place::new();
    place.ok(&["tls", "init", "--dir", &place.text("tls")]);
    place.ok(&["tls", "issue", "--dir", &place.text("tls"), "alice"]);
    let server = serve(&place, "tls/server");
    let_in(&place, &server, "tls/alice");
    let mut open = Open::new(&place, &server, "tls/alice");
    assert_eq!(open.ask(), "200");
    place.ok(&["tls", "revoke", "--dir", &place.text("tls"), "alice"]);
    let reload = || {
        server.signal(rustix::process::Signal::HUP);
        server.line()
    };
    assert_eq!(reload(), "TLS files read again");
    assert_eq!(open.ask(), "closed", "who was revoked keeps no connection");
    refused(&place, &server, "tls/alice", "revoked");
    let_in(&place, &server, "tls/client");
    assert!(server.line().contains("Revoked"));

    // A file that cannot be used changes nothing, and one that is gone does not let the revoked in again.
    let server = serve(&place, "tls/server");
    std::fs::write(place.path("tls/server/crl.pem"), "nonsense").unwrap();
    server.signal(rustix::process::Signal::HUP);
    assert!(server.line().starts_with("TLS files kept as they were"));
    std::fs::remove_file(place.path("tls/server/crl.pem")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    assert!(server.line().starts_with("TLS files kept as they were"));
    let_in(&place, &server, "tls/client");
    refused(&place, &server, "tls/alice", "revoked");

    let list = place.ok(&["tls", "ls", "--dir", &place.text("tls")]);
    let state = |name: &str| {
        list.lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .split_whitespace()
            .last()
            .unwrap()
            .to_owned()
    };
    assert_eq!((state("alice"), state("client")), ("revoked".to_owned(), "good".to_owned()));
}

#[test]
fn the_authority_keeps_its_keys_and_names_to_itself() {
    let place = Place::new();
    let dir = place.text("tls");
    place.ok(&["tls", "init", "--dir", &dir]);
    let mode =
        |name: &str| std::fs::metadata(place.path("tls").join(name)).unwrap().permissions().mode() & 0o777;
    for (name, expected) in [
        (".", 0o700),
        ("ca-key.pem", 0o400),
        ("server/key.pem", 0o400),
        ("client/key.pem", 0o400),
        ("ca.pem", 0o600),
        ("client", 0o700),
        ("client/cert.pem", 0o600),
    ] {
        assert_eq!(mode(name), expected, "{name}");
    }
    for (args, text) in [
        (&["init"][..], "there is an authority already"),
        (&["issue", "client"], "has a certificate already"),
        (&["issue", "../x"], "invalid certificate name"),
        (&["issue", "--host", "x", "y"], "--host is for servers"),
        (&["issue", "--days", "0", "y"], "invalid number of days"),
        (&["revoke", "nobody"], "no certificate that could be revoked"),
    ] {
        let output = place.cauldron(&[&["tls", args[0], "--dir", &dir], &args[1..]].concat());
        assert!(!output.status.success() && both(&output).contains(text), "{args:?}: {}", both(&output));
    }
    let verify = |name: &str| {
        let (list, authority) = (place.text("tls/crl.pem"), place.text("tls/ca.pem"));
        let output = place
            .command("openssl")
            .args(["verify", "-x509_strict", "-crl_check", "-CRLfile", &list, "-CAfile", &authority])
            .arg(place.path(&format!("tls/{name}/cert.pem")))
            .output()
            .unwrap();
        both(&output)
    };
    assert!(verify("client").ends_with("cert.pem: OK\n"), "{}", verify("client"));
    place.ok(&["tls", "revoke", "--dir", &dir, "client"]);
    assert!(verify("client").contains("certificate revoked"));
    // A key that is in use is not written over.
    let out = place.text("out");
    place.ok(&["tls", "issue", "--dir", &dir, "one", "--out", &out]);
    let key = std::fs::read(place.path("out/key.pem")).unwrap();
    let second = place.cauldron(&["tls", "issue", "--dir", &dir, "two", "--out", &out]);
    assert!(!second.status.success() && both(&second).contains("the only key of one"), "{}", both(&second));
    assert_eq!(std::fs::read(place.path("out/key.pem")).unwrap(), key);
    // The name is free again, with another key.
    place.ok(&["tls", "issue", "--dir", &dir, "client"]);
    assert!(verify("client").ends_with("cert.pem: OK\n"), "{}", verify("client"));
}

#[test]
fn contexts_of_dockers_command_line_bring_their_certificates() {
    let place = Place::new();
    place.ok(&["tls", "init", "--dir", &place.text("tls")]);
    let server = serve(&place, "tls/server");
    let file = |name: &str| place.text(&format!("tls/client/{name}.pem"));
    let endpoint =
        format!("host={},ca={},cert={},key={}", server.addresses[0], file("ca"), file("cert"), file("key"));
    let create =
        place.command("docker").args(["context", "create", "far", "--docker", &endpoint]).output().unwrap();
    assert!(create.status.success(), "{}", both(&create));
    for program in ["docker", env!("CARGO_BIN_EXE_cauldron")] {
        let output = place
            .command(program)
            .args(["--context", "far", "version", "--format", "{{.Server.Version}}"])
            .output()
            .unwrap();
        assert_eq!(both(&output).trim(), env!("CARGO_PKG_VERSION"));
    }
    // Archives go both ways between the two programs.
    let (ours, theirs) = (place.path("ours.tar"), place.path("theirs.tar"));
    let (ours, theirs) = (ours.to_str().unwrap(), theirs.to_str().unwrap());
    place.ok(&["context", "export", "far", ours]);
    place.ok(&["context", "import", "again", ours]);
    assert!(!place.cauldron(&["context", "export", "far", ours]).status.success(), "the file exists");
    for (program, args) in [
        ("docker", ["context", "export", "again", theirs]),
        (env!("CARGO_BIN_EXE_cauldron"), ["context", "import", "third", theirs]),
        ("docker", ["context", "import", "fourth", ours]),
    ] {
        let output = place.command(program).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", both(&output));
    }
    for name in ["third", "fourth"] {
        let output = place.cauldron(&["--context", name, "version", "-f", "{{.Server.Version}}"]);
        assert_eq!(both(&output).trim(), env!("CARGO_PKG_VERSION"));
        place.ok(&["context", "rm", name]);
    }
    place.ok(&["context", "rm", "again"]);
    // Another host does not get the certificate of the one before.
    place.ok(&["context", "update", "far", "--docker", "host=tcp://127.0.0.1:1"]);
    let kept = std::fs::read_dir(place.path("config/contexts/tls")).unwrap().flatten();
    assert_eq!(kept.filter(|dir| dir.path().join("docker").exists()).count(), 0);
    let both_ways =
        place.cauldron(&["context", "create", "x2", "--from", "far", "--docker", "host=unix:///x"]);
    assert!(!both_ways.status.success() && both(&both_ways).contains("--docker and --from"));
}
