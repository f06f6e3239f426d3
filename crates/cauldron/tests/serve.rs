//! `cauldron serve`: its sockets, its limits, and the streams that leave HTTP. Needs root, Debian's busybox-static and
//! systemd (systemd-socket-activate), and a `docker` in PATH.

mod served;

use served::{Place, Server, ask, both, eventually, rest};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};

const GET: &str = "GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[test]
fn several_sockets_with_owner_and_mode_gone_in_the_end() {
    let place = Place::new();
    std::fs::create_dir(place.path("s")).unwrap();
    // Nobody listens there any more.
    drop(UnixListener::bind(place.path("s/one.sock")).unwrap());
    let pid_file = place.text("pid");
    let (one, two) =
        (format!("unix://{}", place.text("s/one.sock")), format!("unix://{}", place.text("s/two.sock")));
    let mut server = place.serve(&[
        "-H",
        &one,
        "-H",
        &two,
        "-H",
        "tcp://127.0.0.1:0",
        "--group",
        "adm",
        "--socket-mode",
        "0600",
        "-p",
        &pid_file,
    ]);
    assert_eq!(server.addresses[..2], [one.clone(), two]);
    for host in &server.addresses {
        let output = place.docker(host, &["version", "--format", "{{.Server.APIVersion}}"]);
        assert_eq!(both(&output).trim(), "1.51", "{host}");
    }
    let page = |origin: &str| {
        let url = server.addresses[2].replace("tcp://", "http://") + "/_ping";
        both(&place.command("curl").args(["-s", "-H", &format!("Origin: {origin}"), &url]).output().unwrap())
    };
    assert!(page("http://evil.example").contains("requests of web pages are refused"));
    assert_eq!(page("http://localhost:3000"), "OK");
    // A name that somebody lets point here makes no page ours.
    let named = |host: &str| {
        let url = server.addresses[2].replace("tcp://", "http://") + "/_ping";
        both(&place.command("curl").args(["-s", "-H", &format!("Host: {host}"), &url]).output().unwrap())
    };
    assert!(named("evil.example:2375").contains("not by another name"));
    assert_eq!(named("localhost:2375"), "OK");
    let adm = std::fs::read_to_string("/etc/group").unwrap();
    let adm = adm.lines().find_map(|line| line.strip_prefix("adm:x:")?.split(':').next()).unwrap().to_owned();
    let meta = std::fs::metadata(place.path("s/one.sock")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o777, meta.gid().to_string()), (0o600, adm));
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap().trim(), server.child.id().to_string());

    for (args, text) in [
        (&["-H", one.as_str()][..], "another process listens there"),
        (&["-H", "unix:///proc/none/x", "-p", &pid_file], "another server runs with it"),
        (&["-H", "tcp://0.0.0.0:0"], "--insecure-tcp-without-authentication"),
        (&["-H", "tcp://0.0.0.0:0", "--tls"], "key.pem"),
        (&["-H", "fd://"], "no socket was passed"),
        (&["-H", "http://x"], "want unix://PATH"),
        (&["-H", &format!("unix://{pid_file}")], "a file is in the way"),
        (&["--allow", "containers:fly"], "unknown capability"),
    ] {
        let output = place.cauldron(&[&["serve"], args].concat());
        assert!(!output.status.success() && both(&output).contains(text), "{args:?}: {}", both(&output));
    }

    // A client with a request on its way is answered; a quiet one does not hold the end up.
    let _quiet = UnixStream::connect(place.path("s/one.sock")).unwrap();
    server.signal(rustix::process::Signal::TERM);
    assert!(server.child.wait().unwrap().success());
    assert!(std::fs::read_dir(place.path("s")).unwrap().next().is_none());
    assert!(!place.path("pid").exists());
}

#[test]
fn systemd_passes_sockets_and_is_told() {
    let place = Place::new();
    let (socket, notify) = (place.path("a.sock"), place.path("notify"));
    let told = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    told.set_read_timeout(Some(served::LONG)).unwrap();
    let mut command = place.command("systemd-socket-activate");
    command
        .arg("-l")
        .arg(&socket)
        .args(["--setenv=CAULDRON_ROOT", "--setenv=CAULDRON_RUN_ROOT"])
        .arg(format!("--setenv=NOTIFY_SOCKET={}", notify.display()))
        .arg(env!("CARGO_BIN_EXE_cauldron"))
        .args(["serve", "-H", "fd://"])
        .stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("systemd-socket-activate (Debian's systemd)");
    eventually("systemd-socket-activate listens", || socket.exists());
    // The first connection starts the server.
    let (head, mut body) = ask(&socket, GET);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(rest(&mut body), b"OK");
    let hear = || {
        let mut message = [0; 256];
        let count = told.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..count]).into_owned()
    };
    assert_eq!(hear(), "READY=1");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear(), "READY=1");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(hear(), "STOPPING=1");
    assert!(child.wait().unwrap().success());
    // It is systemd's, not ours to remove.
    assert!(socket.exists());
}

#[test]
fn a_listener_with_limits_keeps_to_them() {
    let place = Place::new();
    place.image();
    let (full, read, logs) = (place.path("full.sock"), place.path("read.sock"), place.path("logs.sock"));
    let host = |path: &std::path::Path| format!("unix://{}", path.display());
    let _server = place.serve(&[
        "-H",
        &host(&full),
        "-H",
        &format!("{}?read-only", host(&read)),
        "-H",
        &format!("{}?allow=containers:read,logs", host(&logs)),
    ]);
    let docker = |path: &std::path::Path, args: &[&str]| {
        let output = place.docker(&host(path), args);
        (output.status.success(), both(&output))
    };
    let secret = "hush-hush";
    let script = "echo said; echo $KEY > /key; exec sleep 1000";
    let env = format!("KEY={secret}");
    let run = ["run", "-d", "--name", "box", "--network", "none", "-e", &env, "--annotation", "LogConfig=x"];
    assert!(docker(&full, &[&run[..], &["busybox", "sh", "-c", script]].concat()).0);
    let option = format!("com.example.password={secret}");
    assert!(docker(&full, &["network", "create", "-o", &option, "net"]).0);
    assert!(docker(&full, &["commit", "-c", &format!("ENV TOKEN={secret}"), "box", "image"]).0);
    let (created, text) = docker(
        &full,
        &[
            "volume",
            "create",
            "-o",
            "type=tmpfs",
            "-o",
            "device=tmpfs",
            "-o",
            &format!("o=uid={}", 1000),
            "vol",
        ],
    );
    assert!(created, "{text}");
    assert!(docker(&full, &["inspect", "box"]).1.contains(secret));

    for path in [&read, &logs] {
        eventually("the container has spoken", || {
            docker(path, &["logs", "box"]) == (true, "said\n".to_owned())
        });
        assert_eq!(docker(path, &["ps", "--format", "{{.Names}}"]), (true, "box\n".to_owned()));
        let (found, text) = docker(path, &["inspect", "--type", "container", "box"]);
        assert!(found && text.contains("exec sleep") && !text.contains(secret), "{text}");
        for args in [
            &["exec", "box", "env"][..],
            &["cp", "box:/key", "-"],
            &["export", "box"],
            &["attach", "--no-stdin", "box"],
            &["stop", "box"],
            &["rm", "-f", "box"],
            &["rename", "box", "other"],
            &["update", "--memory", "64m", "box"],
            &["run", "--rm", "busybox"],
            &["commit", "box", "other"],
            &["save", "image"],
            &["rmi", "image"],
            &["tag", "image", "other"],
            &["pull", "localhost:1/x"],
            &["volume", "create", "v"],
            &["network", "create", "n"],
            &["system", "prune", "-f"],
        ] {
            let (done, text) = docker(path, args);
            // The docker command line keeps the reason of a refused attach to itself.
            assert!(
                !done && (text.contains("permission denied") || text.contains("received 403")),
                "{args:?}: {text}"
            );
            assert!(!text.contains(secret), "{args:?}: {text}");
        }
    }
    for args in [
        &["image", "inspect", "image"][..],
        &["history", "--no-trunc", "image"],
        &["volume", "inspect", "vol"],
        &["network", "inspect", "net"],
        &["system", "df", "-v"],
        &["info"],
    ] {
        let (found, text) = docker(&read, args);
        assert!(found && !text.contains(secret) && !text.contains("uid=1000"), "{args:?}: {text}");
        assert!(!docker(&logs, args).0, "{args:?}");
    }
    // Still there, still running.
    assert_eq!(docker(&full, &["exec", "box", "cat", "/key"]), (true, format!("{secret}\n")));
}

#[test]
fn hijacked_connections_in_both_forms_and_half_closed() {
    let place = Place::new();
    place.image();
    let socket = place.path("a.sock");
    let host = format!("unix://{}", socket.display());
    let _server = place.serve(&["-H", &host]);
    for (upgrade, status) in [
        ("", "HTTP/1.1 200 OK\r\n"),
        ("Connection: Upgrade\r\nUpgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED\r\n"),
    ] {
        place.ok(&["create", "-i", "--name", "box", "--network", "none", "busybox", "cat"]);
        let request = format!(
            "POST /v1.41/containers/box/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n{upgrade}\r\nearly "
        );
        let (head, mut stream) = ask(&socket, &request);
        assert!(head.starts_with(status), "{head}");
        assert!(head.contains("content-type: application/vnd.docker.raw-stream\r\n"), "{head}");
        assert!(!head.contains("transfer-encoding") && !head.contains("content-length"), "{head}");
        place.ok(&["start", "box"]);
        stream.get_mut().write_all(b"and late").unwrap();
        stream.get_mut().shutdown(Shutdown::Write).unwrap();
        let bytes = rest(&mut stream);
        let mut text = Vec::new();
        let mut left = &bytes[..];
        while let [1, 0, 0, 0, a, b, c, d, more @ ..] = left {
            let (payload, more) = more.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
            text.extend_from_slice(payload);
            left = more;
        }
        assert_eq!((String::from_utf8_lossy(&text).as_ref(), left), ("early and late", &[][..]));
        assert_eq!(place.ok(&["wait", "box"]), "0\n");
        place.ok(&["rm", "box"]);
    }
    // exec's configuration comes before the input.
    place.ok(&["run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    let json = r#"{"AttachStdin":true,"AttachStdout":true,"Tty":false,"Cmd":["cat"]}"#;
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (head, mut body) =
        ask(&socket, &post("/containers/box/exec", json).replacen("Host", "Connection: close\r\nHost", 1));
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    let body = String::from_utf8(rest(&mut body)).unwrap();
    let id = body.split('"').nth(3).unwrap();
    let (head, mut stream) =
        ask(&socket, &(post(&format!("/exec/{id}/start"), r#"{"Detach":false}"#) + "typed"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    stream.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream), b"\x01\0\0\0\0\0\0\x05typed");
    // An error is an ordinary answer, and the connection lives on.
    let (head, _stream) = ask(&socket, "POST /containers/none/attach HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
}

#[test]
fn a_draft_that_a_container_works_on_stays() {
    let place = Place::new();
    place.image();
    let socket = place.text("a.sock");
    let _server = place.serve(&["-H", &format!("unix://{socket}")]);
    let post = |path: &str| {
        let url = format!("http://d/cauldron/v1/volumes/{path}");
        let output =
            place.command("curl").args(["-s", "-XPOST", "--unix-socket", &socket, &url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    place.ok(&["volume", "create", "db"]);
    place.ok(&["volume", "create", "db.draft-other"]);
    let draft: serde_json::Value = serde_json::from_str(&post("db/snapshot")).unwrap();
    let draft = draft["Name"].as_str().unwrap().to_owned();
    let mount = format!("{draft}:/d");
    place.ok(&[
        "run",
        "-d",
        "--name",
        "helper",
        "--network",
        "none",
        "-v",
        &mount,
        "busybox",
        "sleep",
        "1000",
    ]);
    let refused = post("db/snapshot");
    assert!(refused.contains("is in use by running containers: helper"), "{refused}");
    place.ok(&["exec", "helper", "touch", "/d/work"]);
    place.ok(&["rm", "-f", "helper"]);
    let second = post("db/snapshot");
    assert!(second.contains("db.draft-") && !second.contains(&draft), "{second}");
    let names = place.ok(&["volume", "ls", "-q"]);
    assert!(names.contains("db.draft-other") && !names.contains(&draft), "{names}");
}

/// The server keeps what runs in memory: whatever another process does shows in the next answer.
#[test]
fn a_list_is_never_older_than_its_question() {
    let place = Place::new();
    place.image();
    let host = format!("unix://{}", place.text("a.sock"));
    let server = place.serve(&["-H", &host]);
    let format = "{{.ID}} {{.Names}} {{.State}} {{.Ports}} {{.Networks}} {{.Labels}} {{.Image}}";
    let ps = ["ps", "--no-trunc", "--format", format];
    let served = || place.ok(&[&["-H", &host], &ps[..]].concat());
    let shows = |what: &[&str], wanted: usize| {
        place.ok(what);
        let list = served();
        assert_eq!(list, place.ok(&ps), "after {what:?}");
        assert_eq!(list.lines().count(), wanted, "after {what:?}: {list}");
    };
    let run = ["run", "-d", "--label", "a=b", "busybox", "sleep", "1000"];
    let named = |name: &'static str, network: &'static str| {
        [&run[..2], &["--name", name, "--network", network], &run[2..]].concat()
    };
    assert_eq!(served(), "");
    shows(&named("one", "none"), 1);
    shows(&["network", "create", "net"], 1);
    shows(&named("two", "net"), 2);
    shows(&["network", "create", "other"], 2);
    shows(&["network", "connect", "other", "two"], 2);
    shows(&["network", "disconnect", "net", "two"], 2);
    shows(&["network", "disconnect", "other", "two"], 2);
    shows(&["network", "connect", "net", "two"], 2);
    shows(&["pause", "one"], 2);
    assert!(served().contains(" paused "));
    shows(&["unpause", "one"], 2);
    shows(&["rename", "one", "uno"], 2);
    shows(&["update", "--restart", "always", "uno"], 2);
    shows(&["stop", "-t", "0", "uno"], 1);
    shows(&["start", "uno"], 2);
    shows(&["restart", "-t", "0", "uno"], 2);
    shows(&["kill", "two"], 1);
    shows(&["start", "two"], 2);
    shows(&["rm", "-f", "two"], 1);
    shows(&named("two", "net"), 2);
    // What a health check finds.
    let mut probed = named("probed", "none");
    probed.splice(
        2..2,
        ["--health-cmd", "test -e /tmp/well", "--health-interval", "50ms", "--health-retries", "1"],
    );
    shows(&probed, 3);
    let health = |wanted: &str| {
        eventually(wanted, || {
            let list = place.ok(&["-H", &host, "ps", "--filter", "name=probed", "--format", "{{.Status}}"]);
            list.contains(&format!("({wanted})"))
        });
    };
    health("unhealthy");
    place.ok(&["exec", "probed", "touch", "/tmp/well"]);
    health("healthy");
    // A monitor that is killed says nothing any more.
    let inspect = |name: &str, what: &str| place.ok(&["inspect", "-f", what, name]).trim().to_owned();
    let id = inspect("two", "{{.Id}}");
    let live = std::fs::read(place.path("run/containers").join(id).join("live.json")).unwrap();
    let live: serde_json::Value = serde_json::from_slice(&live).unwrap();
    let monitor = i32::try_from(live["monitor_pid"].as_i64().unwrap()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(monitor).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    eventually("the killed one is gone", || served().lines().count() == 2);
    assert_eq!(inspect("two", "{{.State.ExitCode}}"), "137");
    shows(&["start", "two"], 3);
    // More than the kernel's queue of changes holds makes no difference.
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let dir = place.path("run/containers");
    for number in 0..limit.trim().parse::<u32>().unwrap().min(100_000) / 2 + 10 {
        let path = dir.join(format!("x{number}"));
        std::fs::write(&path, "").unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    shows(&["rename", "two", "zwei"], 3);
    shows(&["rm", "-f", "uno", "zwei", "probed"], 0);
    place.ok(&["network", "rm", "net", "other"]);
    drop(server);
}

/// One unmasked frame of a websocket's server.
fn frame(stream: &mut impl std::io::Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut long = [0; 8];
    let length = match head[1] {
        126 => {
            stream.read_exact(&mut long[6..]).unwrap();
            u64::from_be_bytes(long)
        }
        127 => {
            stream.read_exact(&mut long).unwrap();
            u64::from_be_bytes(long)
        }
        short => short.into(),
    };
    let mut payload = vec![0; length.try_into().unwrap()];
    stream.read_exact(&mut payload).unwrap();
    (head[0] & 0x0f, payload)
}

#[test]
fn attach_over_a_websocket() {
    let place = Place::new();
    place.image();
    let socket = place.path("a.sock");
    let host = format!("unix://{}", socket.display());
    let _server = place.serve(&["-H", &host]);
    place.ok(&["run", "-di", "--name", "box", "--network", "none", "busybox", "cat"]);
    let open = |version: &str| {
        ask(
            &socket,
            &format!(
                "GET {version}/containers/box/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        )
    };
    for (version, kind) in [("", 2), ("/v1.24", 1)] {
        let (head, mut stream) = open(version);
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        // RFC 6455's own example.
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        // A masked text frame, the mask all zero.
        stream.get_mut().write_all(b"\x81\x86\0\0\0\0hello\n").unwrap();
        assert_eq!(frame(&mut stream), (kind, b"hello\n".to_vec()));
    }
    // More than all buffers hold goes in while it comes out.
    let (_, mut stream) = open("");
    let large = vec![b'x'; 1_000_000];
    let head = [&b"\x82\xff"[..], &(large.len() as u64).to_be_bytes(), &[0; 4]].concat();
    let mut writer = stream.get_ref().try_clone().unwrap();
    let sent = large.clone();
    let writing = std::thread::spawn(move || writer.write_all(&[head, sent].concat()).unwrap());
    let mut echoed = Vec::new();
    while echoed.len() < large.len() {
        echoed.extend(frame(&mut stream).1);
    }
    writing.join().unwrap();
    assert!(echoed == large);
    drop(stream);
    let (_, mut stream) = open("");
    place.ok(&["kill", "box"]);
    assert_eq!(frame(&mut stream).0, 8, "closed at the container's end");
    let (head, _) = ask(&socket, "GET /containers/box/attach/ws HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 4"), "{head}");
}

/// Opens so many connections of each kind, each told that it is on, and drops them.
fn come_and_go(place: &Place, server: &Server, count: usize) {
    let socket = place.path("a.sock");
    let json = r#"{"AttachStdin":true,"AttachStdout":true,"Cmd":["cat"]}"#;
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n";
    let requests = [
        format!("POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n"),
        "POST /containers/box/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!(
            "POST /containers/later/attach?stream=1&stdout=1&stdin=1 HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n"
        ),
        "GET /containers/box/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "POST /containers/box/wait HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "POST /containers/later/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /containers/box/stats HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ];
    let before = server.descriptors();
    for round in 0..count {
        let mut open: Vec<_> = requests.iter().map(|request| ask(&socket, request)).collect();
        if round % 10 == 0 {
            let create = format!(
                "POST /containers/box/exec HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
                json.len()
            );
            let body = String::from_utf8(rest(&mut ask(&socket, &create).1)).unwrap();
            let id = body.split('"').nth(3).unwrap().to_owned();
            open.push(ask(
                &socket,
                &format!(
                    "POST /exec/{id}/start HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Length: 2\r\n\r\n{{}}"
                ),
            ));
        }
        for (head, stream) in &open {
            assert!(head.starts_with("HTTP/1.1 101") || head.starts_with("HTTP/1.1 200"), "{head}");
            // Some stop sending first, as a client at the end of its input does.
            if round % 2 == 0 {
                stream.get_ref().shutdown(Shutdown::Write).unwrap();
            }
        }
    }
    eventually("all descriptors are given back", || server.descriptors() <= before + 2);
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let place = Place::new();
    place.image();
    let server = place.serve(&["-H", &format!("unix://{}", place.text("a.sock"))]);
    place.ok(&["run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    place.ok(&["create", "-i", "--name", "later", "--network", "none", "busybox", "cat"]);
    come_and_go(&place, &server, 40);
    let (memory, threads) = (server.status("VmRSS"), server.status("Threads"));
    come_and_go(&place, &server, 120);
    assert!(server.status("VmRSS") < memory + 4096, "{memory} kB, then {} kB", server.status("VmRSS"));
    eventually("no threads are left behind", || server.status("Threads") <= threads.max(8));
    place.ok(&["start", "later"]);
    assert_eq!(place.ok(&["exec", "box", "echo", "alive"]), "alive\n");
}

#[test]
fn oversized_heads_are_refused_and_slow_readers_cost_nothing() {
    let place = Place::new();
    place.image();
    let socket = place.path("a.sock");
    let server = place.serve(&["-H", &format!("unix://{}", socket.display())]);
    let (head, _) =
        ask(&socket, &format!("GET /_ping HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(200_000)));
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    let many: String = (0..1000).map(|index| format!("X-{index}: x\r\n")).collect();
    let (head, _) = ask(&socket, &format!("GET /_ping HTTP/1.1\r\nHost: x\r\n{many}\r\n"));
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    let create = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n";
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(create.as_bytes()).unwrap();
    // The server hangs up before all of it came.
    while stream.write_all(&[b' '; 65536]).is_ok() {}
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);

    // 64 MiB of log for readers that read nothing of it.
    place.ok(&[
        "run",
        "--name",
        "talker",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "yes 0123456789012345678901234567890123456789 | head -c 16000000",
    ]);
    let before = server.status("VmRSS");
    let request = "GET /containers/talker/logs?stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n";
    let slow: Vec<_> = (0..20).map(|_| ask(&socket, request)).collect();
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown < 10_000, "{grown} kB for {} readers", slow.len());
}

#[test]
fn a_killed_server_loses_nothing() {
    let place = Place::new();
    place.image();
    let host = format!("unix://{}", place.text("a.sock"));
    let mut server = place.serve(&["-H", &host]);
    let docker = |args: &[&str]| {
        let output = place.docker(&host, args);
        assert!(output.status.success(), "{args:?}: {}", both(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let script = "echo before; read word; echo $word; exit 7";
    docker(&["run", "-di", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]);
    docker(&[
        "run",
        "-d",
        "--name",
        "other",
        "--network",
        "none",
        "--restart",
        "always",
        "busybox",
        "sleep",
        "1000",
    ]);
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    // No server: the container goes on, says something, and ends.
    let mut attach = place
        .command(env!("CARGO_BIN_EXE_cauldron"))
        .args(["attach", "box"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    attach.stdin.take().unwrap().write_all(b"during\n").unwrap();
    assert_eq!(attach.wait().unwrap().code(), Some(7));
    let _server = place.serve(&["-H", &host]);
    assert_eq!(docker(&["logs", "box"]), "before\nduring\n");
    assert_eq!(docker(&["wait", "box"]), "7\n");
    assert_eq!(docker(&["ps", "--format", "{{.Names}}"]), "other\n");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let until = format!("{now:.9}");
    let filter = ["--filter", "container=box", "--format", "{{.Action}}"];
    let events = docker(&[&["events", "--since", "1", "--until", &until], &filter[..]].concat());
    assert_eq!(events.lines().collect::<Vec<_>>(), ["create", "start", "attach", "die"], "{events}");
}
