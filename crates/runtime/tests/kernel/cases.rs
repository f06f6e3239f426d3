//! What a container sees and says.

use super::fixture::*;
use model::Kind;

/// Name and test.
pub const ALL: &[(&str, fn())] = &[
    ("exit_codes", exit_codes),
    ("streams_apart", streams_apart),
    ("stdin_half_close", stdin_half_close),
    ("terminal", terminal),
    ("terminal_keys", terminal_keys),
    ("failure_texts", failure_texts),
    ("capabilities_exact", capabilities_exact),
];

fn exit_codes() {
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("exec sh -c 'exit 7'", 7)] {
        let output = Box_::sh(script).run();
        assert_eq!(output.code, code, "{script}: {output:?}");
    }
    let output = Box_::sh("kill -9 $$").with(|bundle| bundle.reaper = true).run();
    assert_eq!(output.code, 137);
}

fn streams_apart() {
    let container = Box_::sh("echo out; echo err >&2; printf tail");
    let output = container.run();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.code), ("out\ntail", "err\n", 0));
    let log = container.log();
    assert!(
        log.contains(r#"{"log":"out\n","stream":"stdout","time":""#)
            && log.contains(r#"{"log":"err\n","stream":"stderr""#),
        "{log}"
    );
    assert!(log.contains(r#"{"log":"tail","stream":"stdout""#), "{log}");
}

fn stdin_half_close() {
    let container = Box_::new(&["cat"]).with(|bundle| {
        bundle.process.open_stdin = true;
        bundle.process.stdin_once = true;
    });
    let big = "0123456789abcde\n".repeat(40_000);
    let output = container.run_with(big.as_bytes()).unwrap();
    assert_eq!((output.stdout == big, output.code), (true, 0));
}

fn terminal() {
    let container =
        Box_::sh("test -t 0 && test -t 1 && tty; stty size; echo done >/dev/console").with(|bundle| {
            bundle.process.tty = true;
            bundle.process.console_size = Some((33, 77));
        });
    let output = container.run();
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains("33 77\r\n") && output.stdout.contains("done\r\n"), "{output:?}");
}

fn terminal_keys() {
    use std::io::{Read as _, Write as _};
    for reaper in [false, true] {
        let tty = |script: &str| {
            Box_::sh(script).with(|bundle| {
                bundle.process.tty = true;
                bundle.process.open_stdin = true;
                bundle.process.stdin_once = true;
                bundle.reaper = reaper;
            })
        };
        // A shell that waits for a command runs its trap only when that one ends: it must not fork.
        let container = tty("trap 'echo int; exit 9' INT; echo ready; while :; do :; done");
        let runtime::Attached::WhenStarted(listener) = container.attach(WITH_STDIN) else {
            panic!("it runs already")
        };
        let live = container.start().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        stream.write_all(b"\x03").unwrap();
        let output = read(stream, true);
        assert!(output.stdout.contains("int\r\n"), "{output:?}");
        assert!(runtime::wait_exit(&live, None).unwrap());
        assert_eq!(container.state().exit_code, 9);
        // The end of a client's stdin is the terminal's end-of-file character.
        let output = tty("cat; echo over").run_with(b"").unwrap();
        assert!(output.stdout.ends_with("over\r\n"), "{output:?}");
    }
}

fn failure_texts() {
    let fail = |argv: &[&str], files: &[(&str, &[u8], u32)]| {
        let container = Box_::new(argv);
        for (name, bytes, mode) in files {
            use std::os::unix::fs::PermissionsExt as _;
            let path = container.dir.join("lower").join(name);
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        let error = container.start().unwrap_err();
        let state = container.state();
        assert!(runtime::live(container.run_dir()).unwrap().is_none());
        assert_eq!(runtime::pids(&container.bundle.cgroup).unwrap_err().kind(), Kind::NotFound);
        (state.exit_code, error.to_string(), error.hint_text().unwrap_or_default().to_owned())
    };
    let (code, text, _) = fail(&["nope"], &[]);
    assert_eq!((code, text.as_str()), (127, "exec: \"nope\": executable file not found in $PATH"));
    let (code, text, _) = fail(&["/nope"], &[]);
    assert_eq!((code, text.as_str()), (127, "exec: \"/nope\": stat /nope: no such file or directory"));
    let (code, text, _) = fail(&["/etc/passwd"], &[]);
    assert_eq!((code, text.as_str()), (126, "exec: \"/etc/passwd\": permission denied"));
    let (code, _, hint) = fail(&["/etc"], &[]);
    assert!(code == 126 && hint.contains("directory"));
    let (code, text, hint) = fail(&["/x"], &[("x", b"#!/bin/nope\n", 0o755)]);
    assert!(
        code == 127 && text == "exec /x: no such file or directory" && hint.contains("/bin/nope"),
        "{text} {hint}"
    );
    let (_, _, hint) = fail(&["/x"], &[("x", b"#!/bin/sh\r\n", 0o755)]);
    assert!(hint.contains("CRLF"), "{hint}");
    let (code, text, hint) = fail(&["/x"], &[("x", b"echo hello\n", 0o755)]);
    assert!(
        code == 126 && text == "exec /x: exec format error" && hint.contains("#!/bin/sh"),
        "{text} {hint}"
    );
    let (code, _, _) = fail(&["/proc/self/exe"], &[]);
    assert_eq!(code, 126);
    let (code, text, _) = fail(&["/x"], &[("x", b"#! /proc/self/exe\n", 0o755)]);
    assert!(code == 126 && text.contains("/proc/self/exe"), "{text}");
}

fn capabilities_exact() {
    let output = Box_::sh("grep -E 'Cap|Seccomp:|NoNewPrivs' /proc/self/status").run();
    let want = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n";
    assert_eq!(output.stdout, want);
}
