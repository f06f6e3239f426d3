//! Engines behind ssh: a real sshd on loopback with keys and a configuration of its own. Needs root, Debian's
//! openssh-server and openssh-client, and a `docker` in PATH.

mod served;

use served::{LONG, Place, both};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

/// A running sshd.
struct Sshd {
    child: Child,
    port: u16,
}

impl Sshd {
    /// Whoever logs in finds `cauldron`, and `docker` if asked for, in PATH: both are the binary under test.
    fn start(place: &Place, programs: &[&str]) -> Self {
        for key in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(place.path(key))
                .status()
                .expect("Debian's openssh-client");
            assert!(made.success());
        }
        std::fs::copy(place.path("user_key.pub"), place.path("authorized_keys")).unwrap();
        let bin = place.path("bin");
        std::fs::create_dir_all(&bin).unwrap();
        for program in programs {
            symlink(env!("CARGO_BIN_EXE_cauldron"), bin.join(program)).unwrap();
        }
        std::fs::create_dir_all("/run/sshd").unwrap();
        // A port that somebody takes in between is not ours: another try.
        for _ in 0..10 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = Self::listen(place, port) {
                return Self { child, port };
            }
        }
        panic!("sshd does not listen");
    }
    fn listen(place: &Place, port: u16) -> Option<Child> {
        let dir = place.dir.display();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {dir}/host_key\nPidFile none\nAuthorizedKeysFile {dir}/authorized_keys\n\
             StrictModes no\nUsePAM yes\nPermitRootLogin yes\nPasswordAuthentication no\nPrintMotd no\n\
             SetEnv PATH={dir}/bin:/usr/bin:/bin CAULDRON_ROOT={dir}/root CAULDRON_RUN_ROOT={dir}/run\n"
        );
        std::fs::write(place.path("sshd_config"), config).unwrap();
        let mut child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(place.path("sshd_config"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's openssh-server");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        while let Ok(line) = lines.recv_timeout(LONG) {
            if line.contains("Server listening on") {
                return Some(child);
            }
        }
        let _ = child.wait();
        None
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client's `ssh`, which would otherwise look at the user's own files.
fn client(place: &Place, program: &str) -> Command {
    let dir = place.path("client");
    std::fs::create_dir_all(&dir).unwrap();
    let script = format!(
        "#!/bin/sh\nexec /usr/bin/ssh -F none -i {0}/user_key -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile={0}/known_hosts -o LogLevel=ERROR \"$@\"\n",
        place.dir.display()
    );
    std::fs::write(dir.join("ssh"), script).unwrap();
    std::fs::set_permissions(dir.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = place.command(program);
    command.env("PATH", format!("{}:{}", dir.display(), std::env::var("PATH").unwrap()));
    // The engine is to be the one behind ssh.
    command.env("CAULDRON_ROOT", "/nonexistent").env("CAULDRON_RUN_ROOT", "/nonexistent");
    command
}

#[test]
fn both_command_lines_reach_an_engine_behind_ssh() {
    let place = Place::new();
    place.image();
    let sshd = Sshd::start(&place, &["cauldron", "docker"]);
    let host = format!("ssh://root@127.0.0.1:{}", sshd.port);
    for program in ["docker", env!("CARGO_BIN_EXE_cauldron")] {
        let mut child = client(&place, program)
            .args([
                "-H",
                &host,
                "run",
                "--rm",
                "-i",
                "--network",
                "none",
                "busybox",
                "sh",
                "-c",
                "cat; echo err >&2; exit 3",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"through ssh\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{program}: {}", both(&output));
        assert_eq!(output.stdout, b"through ssh\n");
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), "err");
    }
    // Without a `docker` there, and through a socket that the URL names.
    std::fs::remove_file(place.path("bin/docker")).unwrap();
    let socket = place.text("far.sock");
    let _server = place.serve(&["-H", &format!("unix://{socket}?read-only")]);
    let far = format!("{host}{socket}");
    let ask = |host: &str, args: &[&str]| {
        client(&place, env!("CARGO_BIN_EXE_cauldron"))
            .args(["-H", host])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert_eq!(both(&ask(&host, &["images", "--format", "{{.Repository}}"])).trim(), "busybox");
    assert_eq!(both(&ask(&far, &["images", "--format", "{{.Repository}}"])).trim(), "busybox");
    assert!(both(&ask(&far, &["rmi", "busybox"])).contains("the listener is read-only"));
    // Nobody there: said, and soon.
    let output = ask("ssh://root@127.0.0.1:1", &["ps"]);
    assert!(!output.status.success() && both(&output).contains("refused"), "{}", both(&output));
}
