//! TLS to registries, from the command line to Debian's docker-registry: authorities and certificates where Docker looks
//! for them, and what is said where they are missing. Needs root, docker-registry and openssl.

mod busybox;
mod home;
mod registries;

use client::authority::{Authority, Order, Usage};
use home::Home;
use registries::Registry;
use std::fs;

const DAY: i64 = 24 * 60 * 60;

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs().try_into().unwrap()
}

/// A home with the image, an authority in `tls`, and a server's certificate for `registry.test` in `server`.
fn home(test: &str) -> (Home, Authority) {
    let home = Home::new(test, |_| {});
    home.etc("hosts", "127.0.0.1 localhost registry.test other.test\n");
    let mut authority = Authority::create(&home.0.join("tls"), "test", now()).unwrap();
    issue(&mut authority, &home, "server", 0);
    (home, authority)
}

fn issue(authority: &mut Authority, home: &Home, name: &str, ago: i64) {
    let hosts = vec!["registry.test".to_owned()];
    let dir = Some(home.0.join(name));
    let order = Order { name: name.to_owned(), usage: Usage::Server, hosts, days: 1, dir };
    authority.issue(&order, now() - ago).unwrap();
}

/// A registry with the certificate of a directory.
fn registry(home: &Home, name: &str, more: &str) -> Registry {
    let (certificate, key) = (home.path(&format!("{name}/cert.pem")), home.path(&format!("{name}/key.pem")));
    let tls = format!("  tls:\n    certificate: {certificate:?}\n    key: {key:?}\n{more}");
    Registry::start(home, &format!("registry-{name}"), &tls, "")
}

fn ca(home: &Home) -> String {
    fs::read_to_string(home.0.join("server/ca.pem")).unwrap()
}

#[test]
fn an_authority_is_trusted_where_docker_looks_for_it() {
    let (home, mut authority) = home("registry-tls");
    let server = registry(&home, "server", "");
    let name = format!("registry.test:{}/app", server.port);
    home.ok(&["tag", "busybox", &name]);
    let directory = format!("/etc/docker/certs.d/registry.test:{}/ca.crt", server.port);
    home.fails(&["push", &name], &["x509: certificate signed by unknown authority", &directory]);
    home.etc(&format!("docker/certs.d/registry.test:{}/ca.crt", server.port), &ca(&home));
    home.goes(&["push", &name]);
    home.ok(&["rmi", &name]);
    home.goes(&["pull", &name]);

    // Another name, an old certificate.
    let other = format!("other.test:{}/app", server.port);
    home.etc(&format!("docker/certs.d/other.test:{}/ca.crt", server.port), &ca(&home));
    home.fails(&["pull", &other], &["x509: certificate is valid for", "registry.test", "not other.test"]);
    issue(&mut authority, &home, "old", 2 * DAY);
    let old = registry(&home, "old", "");
    home.etc(&format!("docker/certs.d/registry.test:{}/ca.crt", old.port), &ca(&home));
    home.fails(&["pull", &format!("registry.test:{}/app", old.port)], &["x509: certificate has expired"]);

    // On the loopback nobody is asked for a certificate, unless somebody said who signs.
    home.goes(&["pull", &format!("localhost:{}/app", server.port)]);
    home.etc(&format!("docker/certs.d/localhost:{}/ca.crt", server.port), &ca(&home));
    home.fails(&["pull", &format!("localhost:{}/app", server.port)], &["not localhost"]);

    // The machine's own authorities.
    fs::remove_dir_all(home.0.join("etc/docker")).unwrap();
    home.fails(&["pull", &name], &["unknown authority"]);
    home.etc("ssl/certs/ca-certificates.crt", &ca(&home));
    home.goes(&["pull", &name]);
}

#[test]
fn plain_http_is_for_those_that_are_listed() {
    let (home, _) = home("registry-plain");
    let server = Registry::open(&home);
    let name = format!("registry.test:{}/app", server.port);
    home.ok(&["tag", "busybox", &name]);
    home.fails(&["push", &name], &["http: server gave HTTP response to HTTPS client", "insecure-registries"]);
    home.etc("cauldron/config.toml", &format!("insecure-registries = [\"registry.test:{}\"]\n", server.port));
    home.goes(&["push", &name]);
    // A range of addresses covers the names that lead into it.
    home.etc("cauldron/config.toml", "insecure-registries = [\"127.0.0.0/8\"]\n");
    home.goes(&["pull", &name]);
    home.etc("cauldron/config.toml", "insecure-registries = [\"10.0.0.0/8\"]\n");
    home.fails(&["pull", &name], &["HTTP response to HTTPS client"]);
}

#[test]
fn a_client_shows_its_certificate_to_its_registry() {
    let (home, mut authority) = home("registry-client");
    let more = format!("    clientcas: [{:?}]\n", home.path("server/ca.pem"));
    let server = registry(&home, "server", &more);
    let name = format!("registry.test:{}/app", server.port);
    let directory = format!("docker/certs.d/registry.test:{}", server.port);
    home.ok(&["tag", "busybox", &name]);
    home.etc(&format!("{directory}/ca.crt"), &ca(&home));
    home.fails(&["push", &name], &["remote error: tls:", "client.cert", "client.key"]);
    let dir = Some(home.0.join("client"));
    let order = Order { name: "client".into(), usage: Usage::Client, hosts: Vec::new(), days: 1, dir };
    authority.issue(&order, now()).unwrap();
    let read = |file: &str| fs::read_to_string(home.0.join("client").join(file)).unwrap();
    home.etc(&format!("{directory}/client.cert"), &read("cert.pem"));
    home.fails(&["push", &name], &["missing key", "client.key for client certificate", "client.cert"]);
    home.etc(&format!("{directory}/client.key"), &read("key.pem"));
    home.goes(&["push", &name]);
}

#[test]
fn what_openssl_makes_is_taken_as_go_takes_it() {
    let (home, _) = home("registry-self");
    fs::create_dir(home.0.join("self")).unwrap();
    let status = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
        ])
        .args(["-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test"])
        .args(["-keyout", &home.path("self/key.pem"), "-out", &home.path("self/cert.pem")])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let server = registry(&home, "self", "");
    let certificate = fs::read_to_string(home.0.join("self/cert.pem")).unwrap();
    for host in ["registry.test", "other.test"] {
        let name = format!("{host}:{}/app", server.port);
        home.ok(&["tag", "busybox", &name]);
        home.fails(&["push", &name], &["unknown authority"]);
        home.etc(&format!("docker/certs.d/{host}:{}/ca.crt", server.port), &certificate);
    }
    home.goes(&["push", &format!("registry.test:{}/app", server.port)]);
    home.fails(&["push", &format!("other.test:{}/app", server.port)], &["x509:", "not other.test"]);
}
