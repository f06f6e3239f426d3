//! Pull, push and look-ups from the command line, ours and Docker's, against Debian's docker-registry. Needs root,
//! docker-registry and a `docker` in PATH.

mod home;
mod registries;
mod served;

use home::Home;
use registries::Registry;
use served::busybox;

#[test]
fn names_tags_and_digests() {
    let home = Home::new("registry-names", |_| {});
    let server = Registry::open(&home);
    let app = format!("{}/group/app", server.host);
    for tag in ["1", "2"] {
        home.ok(&["tag", "busybox", &format!("{app}:{tag}")]);
    }
    let id = home.ok(&["inspect", "-f", "{{.Id}}", "busybox"]);
    let pushed = home.ok(&["push", "-a", &app]);
    for tag in ["1", "2"] {
        assert!(pushed.contains(&format!("{tag}: digest: sha256:")), "{pushed}");
    }
    let by_digest = home.ok(&["inspect", "-f", "{{index .RepoDigests 0}}", &format!("{app}:1")]);
    assert!(by_digest.starts_with(&format!("{app}@sha256:")), "{by_digest}");
    let listed = home.ok(&["images", "--digests", "--format", "{{.Tag}} {{.Digest}}", &app]);
    let digest = by_digest.split_once('@').unwrap().1;
    assert!(listed.lines().any(|line| line == format!("1 {digest}")), "{listed}");

    let shown = home.ok(&["manifest", "inspect", &format!("{app}:1")]);
    assert!(shown.starts_with("{\n\t\"schemaVersion\": 2,"), "{shown}");
    let verbose: serde_json::Value =
        serde_json::from_str(&home.ok(&["manifest", "inspect", "-v", &by_digest])).unwrap();
    assert_eq!(verbose["Descriptor"]["digest"], digest);
    assert_eq!(verbose["OCIManifest"]["config"]["digest"], id.as_str());
    let missing = home.run(&["manifest", "inspect", &format!("{app}:none")]);
    assert!(missing.code == 1 && missing.err.contains("manifest unknown"), "{}", missing.err);
    let found = home.ok(&["search", "--format", "{{.Name}}", &format!("{}/app", server.host)]);
    assert_eq!(found, app);

    home.ok(&["rmi", &format!("{app}:1"), &format!("{app}:2")]);
    home.ok(&["pull", "-a", "-q", &app]);
    assert_eq!(home.ok(&["images", "--format", "{{.Tag}}", &app]).lines().count(), 2);
    home.ok(&["rmi", &format!("{app}:1"), &format!("{app}:2")]);
    let pulled = home.ok(&["pull", "--disable-content-trust", &by_digest]);
    assert!(pulled.contains(&format!("Digest: {digest}")), "{pulled}");
    assert!(pulled.ends_with(&by_digest), "{pulled}");
    assert_eq!(home.ok(&["inspect", "-f", "{{.Id}}", &by_digest]), id);
    let other = home.run(&["pull", "--platform", "linux/s390x", &by_digest]);
    assert!(other.code == 1 && other.err.contains("does not match the specified platform"), "{}", other.err);
}

#[test]
fn a_killed_pull_leaves_no_image_and_goes_on() {
    let home = Home::new("registry-killed", |_| {});
    let server = Registry::open(&home);
    let name = format!("{}/app", server.host);
    home.ok(&["tag", "busybox", &name]);
    home.ok(&["push", "-q", &name]);
    home.ok(&["rmi", "busybox", &name]);
    let killed = home.command(&["pull", &name]).env("CAULDRON_FAILPOINT", "pull: part of a blob@3").output();
    assert!(killed.unwrap().status.code().is_none(), "it was not killed");
    let parts = || -> Vec<u64> {
        let entries = std::fs::read_dir(home.0.join("root/ingest")).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).collect()
    };
    assert!(parts().len() == 1 && parts()[0] > 0);
    assert_eq!(home.ok(&["images", "-q"]), "");
    let found = home.run(&["doctor"]);
    assert!(found.out.contains("the next pull of the image goes on with it"), "{}", found.out);
    home.ok(&["pull", "-q", &name]);
    assert!(parts().is_empty());
    home.ok(&["run", "--rm", "--network", "none", &name, "true"]);
    home.ok(&["doctor", "--verify"]);
}

#[test]
fn served_with_dockerds_flags() {
    let home = Home::new("registry-served", |_| {});
    let (empty, mirror) = (Registry::start(&home, "empty", "", ""), Registry::open(&home));
    home.ok(&["tag", "busybox", &format!("{}/library/app:1", mirror.host)]);
    home.ok(&["push", "-q", &format!("{}/library/app:1", mirror.host)]);
    let place = served::Place::new();
    let socket = format!("unix://{}", place.text("s.sock"));
    let served = place.serve(&[
        "-H",
        &socket,
        "--registry-mirror",
        &format!("http://{}", empty.host),
        "--registry-mirror",
        &format!("http://{}", mirror.host),
        "--insecure-registry",
        "registry.test:5000",
    ]);
    let pulled = place.docker(&socket, &["pull", "app:1"]);
    assert!(pulled.status.success(), "{}", served::both(&pulled));
    let said = served::both(&pulled);
    for text in ["1: Pulling from library/app", "Pull complete", "Digest: sha256:", "docker.io/library/app:1"]
    {
        assert!(said.contains(text), "{text}: {said}");
    }
    let info = served::both(&place.docker(&socket, &["info"]));
    assert!(info.contains("registry.test:5000") && info.contains(&mirror.host), "{info}");
    drop(served);
}
