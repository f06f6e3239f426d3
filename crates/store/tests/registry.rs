//! Pull and push against Debian's docker-registry, and against a server that lies.

mod common;

use common::liar::{Liar, image_with_layer, liar, whole};
use common::{Dir, files, image, quiet, reference, registry};
use model::{Digest, Kind, Result};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use store::registry::{Access, Credentials, Progress, inspect, login, tags};

/// `me:open sesame`, bcrypt of cost 4.
const USERS: &str = "me:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n";

fn as_me(password: &str) -> Access {
    let credentials = Credentials::Basic { user: "me".to_owned(), password: password.to_owned() };
    Access { credentials: Some(credentials), ..Access::default() }
}

#[test]
fn what_is_pushed_is_pulled() {
    let dir = Dir::new("push-pull");
    let (_server, host) = registry(&dir.0, None);
    let (here, there) = (dir.store("here"), dir.store("there"));
    let name = reference(&format!("{host}/group/app:v1"));
    let made = image(&here, &name.familiar());
    let open = Access::default();

    let steps = Mutex::new(Vec::new());
    let note = |progress: Progress| -> Result<()> {
        steps.lock().unwrap().push(progress.status);
        Ok(())
    };
    let pushed = here.push(&name, &open, &note).unwrap();
    assert!(steps.lock().unwrap().iter().any(|status| status == "Pushed"));
    steps.lock().unwrap().clear();
    assert_eq!(here.push(&name, &open, &note).unwrap(), pushed, "the same image gives the same manifest");
    assert!(steps.lock().unwrap().iter().any(|status| status == "Layer already exists"));
    let digests = here.image(&name.familiar()).unwrap().repo_digests;
    assert_eq!(digests, [name.at_digest(pushed.digest.clone())]);

    let pulled = there.pull(&name, None, &open, &quiet).unwrap();
    assert!(pulled.changed);
    assert_eq!(pulled.digest, pushed.digest);
    assert_eq!(pulled.image.id, made.id);
    assert_eq!(pulled.image.config, made.config);
    assert_eq!(pulled.image.tags, std::slice::from_ref(&name));
    assert_eq!(files(&there, &pulled.image), files(&here, &made));
    assert!(!there.pull(&name, None, &open, &quiet).unwrap().changed);

    let by_digest =
        dir.store("digest").pull(&name.at_digest(pushed.digest.clone()), None, &open, &quiet).unwrap();
    assert_eq!(by_digest.image.id, made.id);
    assert!(by_digest.image.tags.is_empty());
    assert_eq!(tags(&name, &open).unwrap(), ["v1"]);
    let found = inspect(&name, &open).unwrap();
    assert_eq!((found.descriptor.digest, found.platforms[0].os.as_str()), (pushed.digest, "linux"));
}

#[test]
fn what_is_missing_is_said_in_dockers_words() {
    let dir = Dir::new("missing");
    let (_server, host) = registry(&dir.0, None);
    let store = dir.store("s");
    let name = reference(&format!("{host}/nothing:here"));
    let error = store.pull(&name, None, &Access::default(), &quiet).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.to_string(),
        format!("manifest for {host}/nothing:here not found: manifest unknown: manifest unknown")
    );
    let error = store.push(&name, &Access::default(), &quiet).unwrap_err();
    assert_eq!(error.to_string(), format!("An image does not exist locally with the tag: {host}/nothing"));

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error =
        store.pull(&reference(&format!("{closed}/a:b")), None, &Access::default(), &quiet).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[test]
fn users_are_asked_for() {
    let dir = Dir::new("users");
    let (_server, host) = registry(&dir.0, Some(USERS));
    let store = dir.store("s");
    let name = reference(&format!("{host}/private:1"));
    let made = image(&store, &name.familiar());
    assert_eq!(login(&host, &as_me("open sesame")).unwrap(), "");
    assert_eq!(login(&host, &as_me("wrong")).unwrap_err().kind(), Kind::Unauthorized);
    for access in [Access::default(), as_me("wrong")] {
        assert_eq!(store.push(&name, &access, &quiet).unwrap_err().kind(), Kind::Unauthorized);
        let error = store.pull(&name, None, &access, &quiet).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("pull access denied for {host}/private, repository does not exist")),
            "{error}"
        );
    }
    store.push(&name, &as_me("open sesame"), &quiet).unwrap();
    let pulled = dir.store("other").pull(&name, None, &as_me("open sesame"), &quiet).unwrap();
    assert_eq!(pulled.image.id, made.id);
}

#[test]
fn an_index_leads_to_this_machines_image() {
    let layer = common::rootfs("index");
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] }
    }))
    .unwrap();
    // As Docker Hub has it: schema 2 with a Docker list.
    let docker = |name: &str| format!("application/vnd.docker.{name}");
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": docker("distribution.manifest.v2+json"),
        "config": { "mediaType": docker("container.image.v1+json"), "digest": Digest::of(&config), "size": config.len() },
        "layers": [{ "mediaType": docker("image.rootfs.diff.tar.gzip"), "digest": Digest::of(&layer), "size": layer.len() }]
    }))
    .unwrap();
    let index = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": docker("distribution.manifest.list.v2+json"),
        "manifests": [
            { "mediaType": "m", "digest": Digest::of(b"other"), "size": 5, "platform": { "os": "linux", "architecture": "s390x" } },
            { "mediaType": "m", "digest": Digest::of(&manifest), "size": manifest.len(), "platform": { "os": "linux", "architecture": "amd64" } },
        ]
    }))
    .unwrap();
    let digest = Digest::of(&index);
    let id = Digest::of(&config);
    let paths = [
        ("/v2/".to_owned(), b"{}".to_vec()),
        ("/v2/x/manifests/1".to_owned(), index),
        (format!("/v2/x/manifests/{}", Digest::of(&manifest)), manifest),
        (format!("/v2/x/manifests/{}", Digest::of(b"forged")), b"{}".to_vec()),
        (format!("/v2/x/blobs/{id}"), config),
        (format!("/v2/x/blobs/{}", Digest::of(&layer)), layer),
    ];
    let server = liar(move |path| match paths.iter().find(|(known, _)| known == path) {
        Some((_, body)) => whole("200 OK", body.clone()),
        None => whole("404 Not Found", Vec::new()),
    });
    let dir = Dir::new("index");
    let store = dir.store("s");
    let name = reference(&format!("{}/x:1", server.host));
    let amd64 = store::registry::parse_platform("linux/amd64").unwrap();
    let pulled = store.pull(&name, Some(&amd64), &Access::default(), &quiet).unwrap();
    assert_eq!((&pulled.image.id, &pulled.digest), (&id, &digest));
    assert_eq!(pulled.image.repo_digests, [name.at_digest(digest)]);
    assert_eq!(inspect(&name, &Access::default()).unwrap().platforms.len(), 2);

    let pull = |name: &model::Reference, platform: &str| {
        let platform = store::registry::parse_platform(platform).unwrap();
        store.pull(name, Some(&platform), &Access::default(), &quiet).unwrap_err().to_string()
    };
    let error = pull(&name, "linux/riscv64");
    assert!(
        error.ends_with("no matching manifest for linux/riscv64 in the manifest list entries"),
        "{error}"
    );
    let error = pull(&name.at_digest(Digest::of(b"forged")), "linux/amd64");
    assert!(error.contains("the registry sent other content"), "{error}");
}

fn refused(server: &Liar, dir: &Dir) -> String {
    let store = dir.store("s");
    let error = store
        .pull(&reference(&format!("{}/x:1", server.host)), None, &Access::default(), &quiet)
        .unwrap_err();
    assert!(store.images().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(store.layout.ingest()).unwrap().count(), 0, "something was left behind");
    error.to_string()
}

#[test]
fn other_content_is_refused() {
    let dir = Dir::new("other-content");
    let layer = common::rootfs("true");
    let mut forged = layer.clone();
    forged[700] ^= 1;
    let length = forged.len();
    let error = refused(&image_with_layer(&layer, forged, length), &dir);
    assert!(error.contains("its content has the digest"), "{error}");
}

#[test]
fn more_than_was_announced_is_refused() {
    let dir = Dir::new("more");
    let layer = common::rootfs("true");
    let longer = [layer.clone(), vec![0u8; 4096]].concat();
    let length = longer.len();
    let error = refused(&image_with_layer(&layer, longer, length), &dir);
    assert!(error.contains(&format!("announces {length} bytes, the manifest {}", layer.len())), "{error}");
}

#[test]
fn an_endless_manifest_is_refused() {
    let dir = Dir::new("endless");
    let server = liar(|path| match path {
        "/v2/" => whole("200 OK", b"{}".to_vec()),
        _ => whole("200 OK", vec![b' '; 5 << 20]),
    });
    let error = refused(&server, &dir);
    assert!(error.contains("it is longer than 4194304 bytes"), "{error}");
}

#[test]
fn secrets_do_not_follow_a_redirect() {
    let elsewhere = liar(|_| whole("404 Not Found", Vec::new()));
    let target = format!("http://{}/stolen", elsewhere.host);
    let server = liar(move |path| match path {
        "/v2/" => ("401 Unauthorized", vec![("www-authenticate", "Basic realm=x".to_owned())], Vec::new(), 0),
        _ => ("307 Temporary Redirect", vec![("location", target.clone())], Vec::new(), 0),
    });
    let dir = Dir::new("redirect");
    let name = reference(&format!("{}/x:1", server.host));
    dir.store("s").pull(&name, None, &as_me("open sesame"), &quiet).unwrap_err();
    let has_secret = |(_, head): &(String, Vec<String>)| {
        head.iter().any(|line| line.to_ascii_lowercase().starts_with("authorization:"))
    };
    assert!(server.asked.lock().unwrap().iter().any(has_secret));
    let asked = elsewhere.asked.lock().unwrap();
    assert!(!asked.is_empty() && !asked.iter().any(has_secret), "{asked:?}");
}

#[test]
fn a_token_is_fetched_and_used() {
    let server = Arc::new(Mutex::new(String::new()));
    let host = Arc::clone(&server);
    let liar = liar(move |path| {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", host.lock().unwrap());
        match path {
            "/v2/" => ("401 Unauthorized", vec![("www-authenticate", challenge)], Vec::new(), 0),
            path if path.starts_with("/token?") => whole("200 OK", br#"{"token":"t0ken"}"#.to_vec()),
            _ => whole("404 Not Found", br#"{"errors":[{"code":"NAME_UNKNOWN","message":"no"}]}"#.to_vec()),
        }
    });
    server.lock().unwrap().clone_from(&liar.host);
    let dir = Dir::new("token");
    let name = reference(&format!("{}/x:1", liar.host));
    let error = dir.store("s").pull(&name, None, &as_me("open sesame"), &quiet).unwrap_err();
    assert_eq!(error.to_string(), format!("repository {}/x not found: name unknown: no", liar.host));
    let asked = liar.asked.lock().unwrap();
    let of = |start: &str| {
        asked
            .iter()
            .find(|(path, _)| path.starts_with(start))
            .unwrap_or_else(|| panic!("{start} was not asked for"))
    };
    let (path, head) = of("/token?");
    assert!(path.contains("service=s") && path.contains("scope=repository%3Ax%3Apull"), "{path}");
    assert!(head.iter().any(|line| line.to_ascii_lowercase().starts_with("authorization: basic")));
    assert!(
        of("/v2/x/manifests/1").1.iter().any(|line| line.eq_ignore_ascii_case("authorization: bearer t0ken"))
    );
}

#[test]
fn a_token_server_without_tls_is_not_asked() {
    let server = liar(|_| {
        let challenge = "Bearer realm=\"http://tokens.invalid/token\",service=\"s\"".to_owned();
        ("401 Unauthorized", vec![("www-authenticate", challenge)], Vec::new(), 0)
    });
    let dir = Dir::new("plain-token");
    let name = reference(&format!("{}/x:1", server.host));
    let error = dir.store("s").pull(&name, None, &as_me("open sesame"), &quiet).unwrap_err();
    assert!(error.to_string().contains("names a token server without TLS"), "{error}");
    let told = |line: &String| line.to_ascii_lowercase().starts_with("authorization");
    assert!(!server.asked.lock().unwrap().iter().any(|(_, head)| head.iter().any(told)));
}

#[test]
fn redirects_have_an_end_and_stay_on_the_web() {
    let dir = Dir::new("redirects");
    for (location, text) in [
        ("/v2/x/manifests/1", "stopped after 5 redirects"),
        ("file:///etc/passwd", "the registry sends us to"),
        ("ftp://127.0.0.1/x", "the registry sends us to"),
    ] {
        let server = liar(move |path| match path {
            "/v2/" => whole("200 OK", b"{}".to_vec()),
            _ => ("307 Temporary Redirect", vec![("location", location.to_owned())], Vec::new(), 0),
        });
        let error = refused(&server, &dir);
        assert!(error.contains(text), "{location}: {error}");
        assert!(server.asked.lock().unwrap().len() < 10);
    }
}

/// A server whose one manifest this is.
fn with_manifest(kind: &'static str, manifest: serde_json::Value) -> Liar {
    let bytes = serde_json::to_vec(&manifest).unwrap();
    liar(move |path| match path {
        "/v2/" => whole("200 OK", b"{}".to_vec()),
        _ => ("200 OK", vec![("content-type", kind.to_owned())], bytes.clone(), bytes.len()),
    })
}

#[test]
fn manifests_of_other_things_are_refused_by_name() {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let dir = Dir::new("manifests");
    let digest = Digest::of(b"x");
    let config =
        |kind: &str, size: u64| serde_json::json!({"mediaType": kind, "digest": digest, "size": size});
    let image = "application/vnd.oci.image.config.v1+json";
    let layer =
        |kind: &str, size: u64| serde_json::json!({"mediaType": kind, "digest": digest, "size": size});
    let plain = "application/vnd.oci.image.layer.v1.tar";
    let manifest = |config: serde_json::Value, layers: Vec<serde_json::Value>| serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    // Whatever it is asked for, it answers with an index: the first is by tag, what the index names is not its content.
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": INDEX, "digest": digest, "size": 5, "platform": {"os": "linux", "architecture": "amd64"}}
    ]});
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let many = vec![layer(plain, 1); 128];
    for (manifest, text) in [
        (serde_json::json!({"schemaVersion": 1, "name": "x", "fsLayers": [], "history": []}), "schema 1"),
        (
            serde_json::json!({"schemaVersion": 3, "config": config(image, 1), "layers": []}),
            "schema version 3, want 2",
        ),
        (
            manifest(config("application/vnd.cncf.helm.config.v1+json", 1), Vec::new()),
            "this is no container image",
        ),
        (manifest(config(image, 1), vec![layer(foreign, 1)]), "foreign layers are not supported"),
        (manifest(config(image, 1), many), "128 layers, 127 at most"),
        (manifest(config(image, 1), vec![layer(plain, (256 << 30) + 1)]), "274877906944 at most"),
        (manifest(config(image, (8 << 20) + 1), Vec::new()), "8388608 at most"),
        (index, "the registry sent other content"),
    ] {
        let error = refused(&with_manifest("", manifest), &dir);
        assert!(error.contains(text), "{text}: {error}");
    }
}

#[test]
fn a_registry_is_searched_by_its_list_of_repositories() {
    let dir = Dir::new("search");
    let (_server, host) = registry(&dir.0, None);
    let (store, open) = (dir.store("s"), Access::default());
    for name in ["group/app", "apple", "other"] {
        let name = format!("{host}/{name}:1");
        image(&store, &name);
        store.push(&reference(&name), &open, &quiet).unwrap();
    }
    let names = |limit| -> Vec<String> {
        let found = store::registry::search(&format!("{host}/app"), limit, &open).unwrap();
        found.into_iter().map(|found| found.name).collect()
    };
    assert_eq!(names(25), [format!("{host}/apple"), format!("{host}/group/app")]);
    assert_eq!(names(1).len(), 1);
    let index = liar(|path| match path {
        "/v2/" => whole("200 OK", b"{}".to_vec()),
        path if path.starts_with("/v1/search?q=app&n=5") => whole(
            "200 OK",
            br#"{"results":[{"name":"a/app","description":"d","star_count":3,"is_official":true}]}"#.to_vec(),
        ),
        _ => whole("404 Not Found", Vec::new()),
    });
    let found = store::registry::search(&format!("{}/app", index.host), 5, &open).unwrap();
    assert_eq!((found.len(), found[0].star_count, found[0].is_official), (1, 3, true));
    let error = store::registry::search(&format!("{}/other", index.host), 5, &open).unwrap_err();
    assert_eq!(error.kind(), Kind::NotImplemented);
}
