//! Attacks on builders that others fell to, each by its name, against ours: what it was after must not happen.
//!
//! The attacker writes the Dockerfile, the context, the base image, or what a step leaves behind; what he must not reach is
//! the host and other builds.

mod builder;
mod busybox;

use builder::Build;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// A file of the host's that no build may read, change or take away.
struct Treasure(PathBuf);

impl Treasure {
    fn new(build: &Build) -> Self {
        let dir = build.dir.join("host");
        std::fs::create_dir_all(dir.join("empty")).unwrap();
        std::fs::write(dir.join("treasure"), "host-only-content").unwrap();
        Self(dir)
    }
    fn untouched(&self) {
        assert_eq!(std::fs::read_to_string(self.0.join("treasure")).unwrap(), "host-only-content");
        assert!(self.0.join("empty").is_dir());
        assert_eq!(std::fs::read_dir(&self.0).unwrap().count(), 2);
    }
    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

/// The source of a cache mount is exchanged for a link to the host between the look and the mount.
#[test]
fn cve_2024_23651_cache_mount_source_is_a_link() {
    let build = Build::new();
    let host = Treasure::new(&build);
    let script = format!("ln -s {} /cache/out; ln -s /../../../../../../../../../.. /cache/up", host.path());
    build.build(&format!("FROM busybox\nRUN --mount=type=cache,id=c,target=/cache {script}\n"));
    for (source, below) in [("out", "treasure"), ("up", &format!("up{}/treasure", host.path()))] {
        build.dockerfile(&format!(
            "FROM busybox\nRUN --mount=type=cache,id=c,target=/m,source={source} cat /m/{below} /m{}/treasure; echo gone > /m/treasure; rm -rf /m/*; true\n",
            host.path()
        ));
        // Whether the step runs is all the same: a link is followed inside the cache.
        let output = build.run(&["build", "-t", "image", "."]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.lines().any(|line| line == "host-only-content"), "{said}");
    }
    host.untouched();
}

/// After a step, the mount points that it left are removed: through a link that the step put in their place.
#[test]
fn cve_2024_23652_clean_up_of_mount_points_follows_a_link() {
    let build = Build::new();
    let host = Treasure::new(&build);
    build.build(&format!(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/x/empty --mount=type=tmpfs,target=/y/z mv /x /old || true; ln -s {} /link; true\nRUN mv /x /gone 2>/dev/null; rmdir /x/empty /x 2>/dev/null; ln -sfn {} /x; true\nRUN --mount=type=tmpfs,target=/x/empty --mount=type=secret,id=none,target=/x/treasure true\n",
        host.path(),
        host.path()
    ));
    host.untouched();
}

/// `security.insecure` from a Dockerfile alone.
#[test]
fn cve_2024_23653_privileges_without_an_entitlement() {
    let build = Build::new();
    build.dockerfile("FROM busybox\nRUN --security=insecure mknod /disk b 8 0\n");
    let said = build.fails(&["build", "."]);
    assert!(said.contains("security.insecure is not allowed") && said.contains("--allow"), "{said}");
    build.dockerfile("FROM busybox\nRUN --network=host ip link\n");
    assert!(build.fails(&["build", "."]).contains("network.host is not allowed"));
    // Whoever starts the build may allow it.
    build.dockerfile(
        "FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs none /m && echo mounted\n",
    );
    assert!(build.ok(&["build", "--allow", "security.insecure", "."]).contains("\nmounted\n"));
    build.dockerfile("FROM busybox\nRUN mkdir /m && mount -t tmpfs none /m && echo mounted\n");
    assert!(!build.fails(&["build", "--allow", "security.insecure", "."]).contains("\nmounted\n"));
}

/// A bind mount's source (buildah CVE-2024-9407) or a stage (CVE-2024-11218) leads out of the tree that it names.
#[test]
fn cve_2024_9407_and_11218_bind_mount_source_is_a_link() {
    let build = Build::new();
    let host = Treasure::new(&build);
    symlink(host.path(), build.context.join("out")).unwrap();
    symlink("../host", build.context.join("up")).unwrap();
    let up = "../".repeat(12);
    for (stage, mount) in [
        ("true", "type=bind,source=out,target=/m".to_owned()),
        ("true", "type=bind,source=up,target=/m,rw".to_owned()),
        ("true", format!("type=bind,source={up}{},target=/m,rw", host.path())),
        ("true", format!("type=bind,from=attacker,source={},target=/m,rw", host.path())),
        ("LINK", "type=bind,from=attacker,source=/escape,target=/m,rw".to_owned()),
        ("LINK", "type=bind,from=attacker,source=/escape/empty,target=/m,rw".to_owned()),
        ("LINK", "type=cache,id=fresh,from=attacker,source=/escape,target=/m".to_owned()),
    ] {
        let stage = stage.replace("LINK", &format!("ln -s {} /escape", host.path()));
        build.dockerfile(&format!(
            "FROM busybox AS attacker\nRUN {stage}\nFROM busybox\nRUN --mount={mount} cat /m/treasure; echo gone > /m/treasure; touch /m/new; true\n"
        ));
        let output = build.run(&["build", "."]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!said.lines().any(|line| line == "host-only-content"), "{mount}: {said}");
        host.untouched();
    }
}

/// Links in the image under a mount's target, a copy's target or a work directory (CVE-2024-9676 and its like).
#[test]
fn cve_2024_9676_links_in_the_image_lead_nowhere() {
    let build = Build::new();
    let host = Treasure::new(&build);
    build.file("new", "from the context");
    build.build(&format!(
        "FROM busybox\nRUN ln -s {0} /l; ln -s {0}/treasure /t; rm -f /etc/passwd /etc/group; ln -s {0}/treasure /etc/passwd; ln -s /proc/self/root{0}/treasure /etc/group\nCOPY new /l/new\nCOPY new /t\nADD new /l/\nWORKDIR /l/empty/made\nRUN --mount=type=tmpfs,target=/l/mounted true\n",
        host.path()
    ));
    host.untouched();
    // What was copied lies in the image, where the link points in there.
    assert_eq!(build.sh(&format!("cat {}/new", host.path())), "from the context");
    build.dockerfile("FROM image\nCOPY --chown=host-only-content new /x\n");
    assert!(!build.fails(&["build", "."]).contains("host-only-content:"), "the host's file was read");
}

/// The Dockerfile or its ignore file is a link to a file of the host's.
#[test]
fn a_symlinked_dockerfile_or_ignore_file_reads_nothing_of_the_host() {
    let build = Build::new();
    let host = Treasure::new(&build);
    symlink(host.0.join("treasure"), build.context.join("Dockerfile")).unwrap();
    let said = build.fails(&["build", "."]);
    assert!(!said.contains("host-only-content"), "{said}");
    std::fs::remove_file(build.context.join("Dockerfile")).unwrap();
    symlink(host.0.join("treasure"), build.context.join(".dockerignore")).unwrap();
    std::fs::write(host.0.join("treasure"), "[").unwrap();
    build.file("a", "a");
    build.dockerfile("FROM busybox\nCOPY a /\n");
    build.ok(&["build", "."]);
}

/// An image that somebody made to look like a cached step, a config that differs (CVE-2024-24557), a cache that another
/// step filled.
#[test]
fn cve_2024_24557_the_cache_cannot_be_poisoned() {
    let build = Build::new();
    // The classic builder took a local image with the same instruction text for the step's result.
    build.build("FROM scratch\nCOPY --from=busybox / /\nRUN echo genuine > /who\n");
    build.ok(&["run", "--name", "evil", "--network", "none", "busybox", "sh", "-c", "echo poisoned > /who"]);
    build.ok(&[
        "commit",
        "-c",
        "CMD [\"x\"]",
        "-m",
        "RUN /bin/sh -c echo genuine > /who # buildkit",
        "evil",
        "image",
    ]);
    build.ok(&["rm", "evil"]);
    let said = build.build("FROM scratch\nCOPY --from=busybox / /\nRUN echo genuine > /who\n");
    assert_eq!(said.matches("Using cache").count(), 2, "{said}");
    assert_eq!(build.sh("cat /who"), "genuine\n");
    // HEALTHCHECK and ONBUILD took no part in the key.
    let inspect = |format: &str| build.ok(&["inspect", "--format", format, "image"]);
    build.build("FROM busybox\nHEALTHCHECK CMD one\nONBUILD RUN one\n");
    build.build("FROM busybox\nHEALTHCHECK CMD two\nONBUILD RUN two\n");
    assert_eq!(inspect("{{.Config.Healthcheck.Test}} {{.Config.OnBuild}}"), "[CMD-SHELL two] [RUN two]\n");
    // The same command in another environment is another step.
    build.build("FROM busybox\nENV WHO=one\nRUN echo $WHO > /who\n");
    build.build("FROM busybox\nENV WHO=two\nRUN echo $WHO > /who\n");
    assert_eq!(build.sh("cat /who"), "two\n");
    build.build("FROM busybox\nUSER 5\nRUN id -u > /tmp/who\n");
    build.build("FROM busybox\nUSER 6\nRUN id -u > /tmp/who\n");
    assert_eq!(build.sh("cat /tmp/who"), "6\n");
}

/// Variables of the host, of secrets and of proxies stay out of steps, layers, history and cache.
#[test]
fn nothing_leaks_into_steps_and_images() {
    let build = Build::new();
    build.file("key", "s3cret-value");
    build.dockerfile(
        "FROM busybox\nRUN env > /env; ls /proc/1/root/../../host 2>/dev/null; true\nRUN --mount=type=secret,id=key,env=KEY,target=/run/key test ${#KEY} = 12 && cp /run/key /dev/shm/ && test -s /run/key\nRUN test ! -e /run/key && ! env | grep -q KEY && ! ls /dev/shm | grep -q key\n",
    );
    let said = build.ok(&[
        "build",
        "-t",
        "image",
        "--secret",
        "id=key,src=key",
        "--build-arg",
        "HTTPS_PROXY=http://user:pr0xy-password@h",
        ".",
    ]);
    let history = build.ok(&["history", "--no-trunc", "image"]);
    let inspected = build.ok(&["inspect", "image"]);
    for text in [&said, &history, &inspected] {
        for secret in ["s3cret-value", "pr0xy-password", "leaked"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    let variables = build.sh("cat /env");
    assert!(!variables.contains("HOST_ONLY_VARIABLE") && variables.contains("HTTPS_PROXY"), "{variables}");
    // Nor in any file of the engine's: the step that wrote the proxy into the image is the one that was asked to.
    assert!(!builder::tree_holds(&build.dir.join("root"), b"s3cret-value"));
    // A secret that changed runs nothing again: it is no part of the key.
    build.file("key", "s3cret-value, changed");
    let again =
        build.ok(&["build", "--secret", "id=key,src=key", "--build-arg", "HTTPS_PROXY=http://other", "."]);
    assert_eq!(again.matches("Using cache").count(), 3, "{again}");
}

/// Repositories: a helper of git's, an option in place of a reference, the host's own repositories, a hook, a subdirectory
/// that is a link.
#[test]
fn repositories_cannot_make_git_do_more() {
    let build = Build::new();
    let host = Treasure::new(&build);
    let mark = build.dir.join("ran");
    for source in [
        format!("file://{}/repository", build.dir.display()),
        format!("git@h:x --upload-pack=touch${{IFS}}{}", mark.display()),
        format!("https://127.0.0.1:1/x.git#--upload-pack=touch {}", mark.display()),
        format!("ssh://-oProxyCommand=touch%20{}/x.git", mark.display()),
        format!("ext::sh -c touch% {}", mark.display()),
    ] {
        build.dockerfile(&format!("FROM busybox\nADD [\"{source}\", \"/x\"]\n"));
        build.fails(&["build", "."]);
        assert!(!mark.exists(), "{source} ran a command");
    }
    let repository = build.dir.join("repository");
    let script = format!(
        "git init -q . && ln -s {} escape && mkdir real && echo 'FROM busybox' > Dockerfile && cp Dockerfile real && mkdir .git/hooks -p \
         && printf '#!/bin/sh\\ntouch {}' > .git/hooks/post-checkout && chmod +x .git/hooks/post-checkout \
         && git add . && git -c user.name=n -c user.email=e commit -qm 1",
        host.path(),
        mark.display()
    );
    std::fs::create_dir(&repository).unwrap();
    let made = std::process::Command::new("sh").args(["-ec", &script]).current_dir(&repository).status();
    assert!(made.expect("git").success());
    let url = format!("file://{}", repository.display());
    build.ok(&["build", &url]);
    build.ok(&["build", &format!("{url}#:real")]);
    for below in ["escape", "../../..", "nosuch"] {
        let said = build.fails(&["build", &format!("{url}#:{below}")]);
        assert!(said.contains("the repository has no directory"), "{below}: {said}");
    }
    assert!(!mark.exists(), "a hook ran");
    host.untouched();
}
