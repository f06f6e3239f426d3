//! The command line as a person drives it: real containers on a root of their own, of Debian's static busybox. With
//! `CAULDRON_TEST_HOST` the same tests run against another engine, so they test Docker's behaviour and not ours.

mod busybox;
mod driver;

use driver::Engine;

#[test]
fn streams_and_exit_codes() {
    let engine = Engine::new("streams");
    let (out, err, code) = engine.container(&["busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((out.as_str(), err.as_str(), code), ("out\n", "err\n", 3));
    assert_eq!(engine.container(&["busybox", "/nope"]).2, 127);
    assert_eq!(engine.container(&["busybox", "/etc"]).2, 126);
    assert_eq!(engine.container(&["busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).2, 137);
    assert_eq!(engine.container(&["--nope", "busybox"]).2, 125);
    let echoed =
        engine.piped(&["run", "-i", "--rm", "--network", "none", "busybox", "cat"], b"through\0it\n");
    assert_eq!(echoed.stdout, b"through\0it\n");
    let many = vec![b'x'; 3_000_000];
    let echoed = engine.piped(&["run", "-i", "--rm", "--network=none", "busybox", "cat"], &many);
    assert!(echoed.stdout == many, "{} bytes came back", echoed.stdout.len());
}

#[test]
fn a_terminal_that_is_none() {
    let engine = Engine::new("tty");
    let (out, err, code) = engine.container(&["-it", "busybox", "sh", "-c", "echo a; echo b"]);
    assert_eq!((out.as_str(), code), ("a\nb\n", 0));
    assert!(err.contains("not a TTY"), "{err}");
}

#[test]
fn a_container_s_life() {
    let engine = Engine::new("life");
    let id = engine.ok(&[
        "run",
        "--detach=true",
        "--network",
        "none",
        "--name",
        "life",
        "-l",
        "a=b",
        "-e",
        "X=1",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done",
    ]);
    assert_eq!(id.trim().len(), 64);
    assert_eq!(
        engine.ok(&["ps", "--filter", "label=a=b", "--format", "{{.Names}} {{.State}} {{.Label \"a\"}}"]),
        "life running b\n"
    );
    assert_eq!(engine.ok(&["exec", "life", "sh", "-c", "echo $X"]), "1\n");
    assert_eq!(engine.run(&["exec", "life", "sh", "-c", "exit 4"]).status.code(), Some(4));
    assert_eq!(
        engine.ok(&["inspect", "-f", "{{.State.Status}} {{json .Config.Labels}}", "life"]),
        "running {\"a\":\"b\"}\n"
    );
    let taken = engine.run(&["run", "--network", "none", "--name", "life", "busybox", "true"]);
    assert_eq!(taken.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&taken.stderr).contains("is already in use by container"));
    engine.ok(&["rename", "life", "lived"]);
    engine.ok(&["stop", "-t", "10", "lived"]);
    assert_eq!(engine.ok(&["wait", "lived"]), "7\n");
    assert_eq!(engine.ok(&["logs", "lived"]), "up\n");
    assert_eq!(engine.ok(&["rm", "lived"]), "lived\n");
    let gone = engine.run(&["rm", "lived"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("No such container: lived"));
}

#[test]
fn files_go_both_ways() {
    let engine = Engine::new("cp");
    engine.ok(&["run", "-d", "--network", "none", "--name", "cp", "busybox", "sleep", "1000"]);
    std::fs::create_dir_all(engine.dir.join("tree/sub")).unwrap();
    std::fs::write(engine.dir.join("tree/sub/file"), "content\n").unwrap();
    engine.ok(&["cp", "tree", "cp:/tmp"]);
    assert_eq!(engine.ok(&["exec", "cp", "cat", "/tmp/tree/sub/file"]), "content\n");
    engine.ok(&["cp", "cp:/tmp/tree/.", "back"]);
    assert_eq!(std::fs::read_to_string(engine.dir.join("back/sub/file")).unwrap(), "content\n");
    engine.ok(&["cp", "cp:/tmp/tree/sub/file", "renamed"]);
    assert_eq!(std::fs::read_to_string(engine.dir.join("renamed")).unwrap(), "content\n");
    engine.ok(&["rm", "-f", "cp"]);
}

#[test]
fn an_image_is_built_saved_and_loaded() {
    let engine = Engine::new("build");
    let context = engine.dir.join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), "FROM busybox\nARG WHO=nobody\nCOPY . /ctx\nRUN echo hello $WHO > /greeting\nCMD [\"cat\", \"/greeting\"]\n").unwrap();
    std::fs::write(context.join(".dockerignore"), "*.log\n").unwrap();
    std::fs::write(context.join("a.log"), "").unwrap();
    std::fs::write(context.join("kept"), "").unwrap();
    engine.ok(&["build", "-t", "built:1", "--network", "none", "--build-arg", "WHO=you", "context"]);
    assert_eq!(engine.container(&["built:1"]).0, "hello you\n");
    assert!(!engine.container(&["built:1", "ls", "/ctx"]).0.contains("a.log"));
    engine.ok(&["save", "-o", "built.tar", "built:1"]);
    engine.ok(&["rmi", "built:1"]);
    assert!(engine.run(&["image", "inspect", "built:1"]).status.code() == Some(1));
    assert!(engine.ok(&["load", "-i", "built.tar"]).contains("built:1"));
    assert_eq!(engine.container(&["built:1"]).0, "hello you\n");
}

#[test]
fn what_is_wrong_is_said() {
    let engine = Engine::new("wrong");
    let said = |args: &[&str]| {
        let output = engine.run(args);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (args, code, text) in [
        (&["nope"][..], 1, "unknown command"),
        (&["run"], 1, "requires at least 1 argument"),
        (&["run", "--bogus", "x"], 125, "unknown flag: --bogus"),
        (&["inspect", "nope"], 1, "No such object: nope"),
        (&["image", "inspect", "nope"], 1, "No such image: nope"),
        (&["ps", "--filter", "x"], 125, "bad format of filter"),
        (&["inspect", "-f", "{{", "busybox"], 64, "template parsing error"),
        (&["-H", "unix:///nonexistent.sock", "ps"], 1, "Cannot connect"),
    ] {
        let (got, words) = said(args);
        assert!(got == code && words.contains(text), "{args:?}: {got}\n{words}");
    }
}
