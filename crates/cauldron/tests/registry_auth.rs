//! Who may pull and push: users, tokens, helpers that keep credentials, and that nobody hears of them who should not.
//! Needs root, docker-registry and openssl.

mod busybox;
mod home;
mod registries;

use home::{Home, Run};
use registries::{Registry, tokens};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

impl Home {
    fn with_stdin(&self, args: &[&str], input: &str) -> Run {
        let mut command = self.elsewhere(env!("CARGO_BIN_EXE_cauldron"), args);
        let path = format!("{}:{}", self.path("bin"), std::env::var("PATH").unwrap());
        command.env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Run::of(child.wait_with_output().unwrap())
    }
    fn login(&self, host: &str, password: &str) -> Run {
        self.with_stdin(&["login", "-u", "me", "--password-stdin", host], password)
    }
    fn docker_config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("config/config.json")).unwrap()).unwrap()
    }
}

#[test]
fn a_user_logs_in_and_out() {
    let home = Home::new("registry-users", |_| {});
    let server = Registry::with_users(&home);
    let name = format!("{}/private:1", server.host);
    home.ok(&["tag", "busybox", &name]);
    let remedy = format!("login {}", server.host);
    home.fails(&["push", &name], &["authentication required", &remedy]);
    let wrong = home.login(&server.host, "wrong");
    assert!(wrong.code == 1 && wrong.err.contains("authentication required"), "{}", wrong.err);
    assert!(!home.0.join("config/config.json").exists());

    let right = home.login(&server.host, "open sesame\n");
    assert_eq!((right.code, right.out.trim()), (0, "Login Succeeded"), "{}", right.err);
    assert!(right.err.contains("stored unencrypted"), "{}", right.err);
    let mode = fs::metadata(home.0.join("config/config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(home.docker_config()["auths"][&server.host]["auth"], "bWU6b3BlbiBzZXNhbWU=");
    home.goes(&["push", &name]);
    home.ok(&["rmi", &name]);
    home.goes(&["pull", &name]);
    assert!(home.goes(&["login", &server.host]).contains("Login Succeeded"), "what is kept is used");

    // A build pulls its base with them.
    home.ok(&["rmi", &name]);
    fs::create_dir(home.0.join("context")).unwrap();
    fs::write(home.0.join("context/Dockerfile"), format!("FROM {name}\nLABEL a=b\n")).unwrap();
    home.goes(&["build", "-q", "-t", "built", "context"]);

    home.goes(&["logout", &server.host]);
    assert_eq!(home.docker_config()["auths"], serde_json::json!({}));
    home.ok(&["rmi", "built", &name]);
    home.fails(&["pull", &name], &["pull access denied", "may require 'docker login'", &remedy]);
    assert!(home.there(&["logout", &server.host]).err.contains("Not logged in to"));
}

#[test]
fn tokens_are_got_from_the_server_that_the_registry_names() {
    let home = Home::new("registry-tokens", |_| {});
    let tokens = tokens::start(&home);
    let server = Registry::start(&home, "tokens", "", &tokens.config);
    let (open, private) = (format!("{}/public/app:1", server.host), format!("{}/app:1", server.host));
    home.ok(&["tag", "busybox", &open]);
    home.ok(&["tag", "busybox", &private]);
    home.fails(&["push", &private], &["authentication required"]);
    let wrong = home.login(&server.host, "wrong");
    assert!(wrong.err.contains("unauthorized: incorrect username or password"), "{}", wrong.err);
    let right = home.login(&server.host, "open sesame");
    assert_eq!(right.code, 0, "{}", right.err);
    // The password is not kept where the server gave something in its place.
    let kept = &home.docker_config()["auths"][&server.host];
    assert_eq!((&kept["identitytoken"], &kept["auth"]), (&tokens::REFRESH.into(), &"bWU6".into()));
    for name in [&open, &private] {
        home.goes(&["push", name]);
        home.ok(&["rmi", name]);
    }
    home.goes(&["pull", &private]);
    home.goes(&["logout", &server.host]);
    home.ok(&["rmi", &private]);
    home.goes(&["pull", &open]);
    home.fails(&["pull", &private], &["pull access denied"]);
    let asked = tokens.asked.lock().unwrap();
    assert!(
        asked
            .iter()
            .any(|request| request.starts_with("POST ") && request.contains("grant_type=refresh_token"))
    );
    assert!(asked.iter().any(|request| request.contains("scope=repository%3Aapp%3Apull%2Cpush")));
}

/// A helper that keeps what it is given in a file of the test.
const HELPER: &str = "#!/bin/sh\nkept=$HELPER_FILE; read -r asked\ncase $1 in\n\
    store) echo \"$asked\" > $kept;;\n\
    get) if [ -e $kept ]; then cat $kept; else echo 'credentials not found in native keychain'; exit 1; fi;;\n\
    erase) rm $kept;;\nesac\n";

#[test]
fn helpers_keep_credentials() {
    let home = Home::new("registry-helpers", |_| {});
    let server = Registry::with_users(&home);
    let name = format!("{}/private:1", server.host);
    home.ok(&["tag", "busybox", &name]);
    fs::create_dir_all(home.0.join("bin")).unwrap();
    fs::create_dir_all(home.0.join("config")).unwrap();
    let script = home.0.join("bin/docker-credential-test");
    fs::write(&script, HELPER.replace("$HELPER_FILE", &home.path("kept"))).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for config in [
        serde_json::json!({"credsStore": "test", "other": {"stays": 1}}),
        serde_json::json!({"credHelpers": {&server.host: "test"}, "credsStore": "elsewhere"}),
    ] {
        fs::write(home.0.join("config/config.json"), config.to_string()).unwrap();
        let none = home.with_stdin(&["push", &name], "");
        assert!(none.code != 0 && !none.err.contains("keychain"), "{}", none.err);
        let right = home.login(&server.host, "open sesame");
        assert_eq!(right.code, 0, "{}", right.err);
        assert!(!right.err.contains("unencrypted"), "{}", right.err);
        let kept: Value = serde_json::from_slice(&fs::read(home.0.join("kept")).unwrap()).unwrap();
        assert_eq!(
            (&kept["ServerURL"], &kept["Secret"]),
            (&server.host.as_str().into(), &"open sesame".into())
        );
        assert_eq!(home.docker_config()["auths"][&server.host], serde_json::json!({}));
        assert_eq!(home.docker_config()["other"], config["other"]);
        let pushed = home.with_stdin(&["push", &name], "");
        assert_eq!(pushed.code, 0, "{}", pushed.err);
        let out = home.with_stdin(&["logout", &server.host], "");
        assert!(out.code == 0 && !home.0.join("kept").exists(), "{}", out.err);
    }
    // One that is not there is named, and the registry is asked without.
    fs::write(home.0.join("config/config.json"), r#"{"credsStore": "absent"}"#).unwrap();
    let run = home.with_stdin(&["pull", &name], "");
    assert!(
        run.err.contains("exec: \"docker-credential-absent\": executable file not found in $PATH"),
        "{}",
        run.err
    );
    assert!(run.err.contains("pull access denied"), "{}", run.err);
    let run = home.login(&server.host, "open sesame");
    assert!(run.code != 0 && run.err.contains("error storing credentials"), "{}", run.err);
}

#[test]
fn credentials_go_over_plain_http_only_where_it_is_allowed() {
    let home = Home::new("registry-secret", |_| {});
    home.etc("hosts", "127.0.0.1 localhost registry.test\n");
    let server = Registry::with_users(&home);
    let host = format!("registry.test:{}", server.port);
    let refused = home.login(&host, "open sesame");
    assert!(refused.code != 0 && refused.err.contains("HTTP response to HTTPS client"), "{}", refused.err);
    home.etc("cauldron/config.toml", &format!("insecure-registries = [\"{host}\"]\n"));
    let allowed = home.login(&host, "open sesame");
    assert_eq!(allowed.code, 0, "{}", allowed.err);
}
