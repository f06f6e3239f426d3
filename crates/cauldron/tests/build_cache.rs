//! Caches that travel: what one machine built is not built again by another. Needs root and docker-registry.

mod busybox;
mod home;
mod registries;

use home::Home;
use std::path::Path;

/// What `make` writes differs with each execution, so an equal image is one that came from the cache.
const FILE: &str = "FROM busybox AS make\nRUN --network=none cat /proc/sys/kernel/random/uuid > /made\nRUN --network=none cp /made /more\nFROM busybox\nCOPY --from=make /made /copied\nRUN --network=none cat /proc/sys/kernel/random/uuid > /own\nENV A=b\nCMD [\"cat\", \"/made\"]\n";

/// A machine with the image, that of the first where it is another, and the context.
fn machine(name: &str, first: Option<&Home>) -> Home {
    let home = Home::bare(name);
    match first {
        None => {
            home.import(|_| {});
            home.ok(&["save", "-o", &home.path("saved.tar"), "busybox"]);
        }
        Some(first) => drop(home.ok(&["load", "-i", &first.path("saved.tar")])),
    }
    std::fs::create_dir(home.0.join("context")).unwrap();
    std::fs::write(home.0.join("context/Dockerfile"), FILE).unwrap();
    home
}

/// Builds `image`; gives its id and what was said.
fn build(home: &Home, flags: &[&str]) -> (String, String) {
    let tag: &[&str] = if flags.contains(&"-t") { &[] } else { &["-t", "image"] };
    let run =
        home.run(&[&["build", "--progress=plain", "--iidfile", "id"], tag, flags, &["context"]].concat());
    assert_eq!(run.code, 0, "{flags:?}: {}{}", run.out, run.err);
    (std::fs::read_to_string(home.0.join("id")).unwrap(), run.err)
}

fn cached(said: &str) -> usize {
    said.matches(" CACHED\n").count()
}

#[test]
fn through_a_registry() {
    let one = machine("cache-one", None);
    let registry = registries::Registry::open(&one);
    let (min, max) = (format!("{}/cache:min", registry.host), format!("{}/cache:max", registry.host));
    let (to_min, to_max) =
        (format!("type=registry,ref={min}"), format!("type=registry,ref={max},mode=max,image-manifest=true"));
    let (id, _) = build(&one, &["--cache-to", &to_min, "--cache-to", &to_max]);
    let manifest = one.ok(&["manifest", "inspect", "--insecure", &max]);
    assert!(manifest.contains("application/vnd.buildkit.cacheconfig.v0"), "{manifest}");
    // Everything is there: nothing is carried out, and it is the same image.
    let other = machine("cache-other", Some(&one));
    let (same, said) = build(&other, &["--cache-from", &format!("type=registry,ref={max}")]);
    assert!(same == id && cached(&said) == 4, "{said}");
    // And now it is here: the registry is not asked.
    let (same, said) = build(&other, &["--cache-from", "127.0.0.1:1/nothing"]);
    assert!(same == id && !said.contains("warning"), "{said}");
    // Only the image's own layers: what they were made of is made anew, so the copy of it is another.
    let third = machine("cache-third", Some(&one));
    let (another, said) = build(&third, &["--cache-from", &min]);
    assert!(another != id && cached(&said) == 0 && said.contains("importing cache from"), "{said}");
    // A cache that is not there is no reason not to build, one that cannot be sent is.
    let (_, said) = build(&third, &["--no-cache", "--cache-from", &min]);
    assert_eq!(cached(&said), 0, "{said}");
    let nowhere = "type=registry,ref=127.0.0.1:1/nothing";
    let (_, said) =
        build(&third, &["--build-arg", "B=1", "--no-cache-filter", "make", "--cache-from", nowhere]);
    assert!(said.contains("warning: no cache from 127.0.0.1:1/nothing"), "{said}");
    let (_, said) = build(&third, &["--cache-to", &format!("{nowhere},ignore-error=true")]);
    assert!(said.contains("warning: no cache to 127.0.0.1:1/nothing"), "{said}");
    let run = third.run(&["build", "--cache-to", nowhere, "context"]);
    assert!(run.code == 1 && run.err.contains("export the cache to 127.0.0.1:1/nothing"), "{}", run.err);
}

#[test]
fn in_the_image() {
    let one = machine("inline-one", None);
    let registry = registries::Registry::open(&one);
    let name = format!("{}/app:1", registry.host);
    std::fs::write(one.0.join("context/Dockerfile"), "FROM busybox\nRUN --network=none cat /proc/sys/kernel/random/uuid > /u\nRUN --network=none cp /u /v\n").unwrap();
    let (id, _) = build(&one, &["-t", &name, "--cache-to", "type=inline", "--push"]);
    let other = machine("inline-other", Some(&one));
    std::fs::copy(one.0.join("context/Dockerfile"), other.0.join("context/Dockerfile")).unwrap();
    let (same, said) = build(&other, &["--cache-from", &name, "--build-arg", "BUILDKIT_INLINE_CACHE=1"]);
    assert!(same == id && cached(&said) == 2, "{said}");
    // Without it the image is the same but for that, and one without a cache says so.
    let (plain, _) = build(&other, &["-t", &name, "--push"]);
    assert_ne!(plain, id);
    let third = machine("inline-third", Some(&one));
    let (_, said) = build(&third, &["--cache-from", &name]);
    assert!(said.contains("it is an image without a cache"), "{said}");
}

/// Every blob of a layout that is a layer of it.
fn layers(dir: &Path) -> Vec<std::path::PathBuf> {
    let blobs = std::fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    blobs.filter(|path| std::fs::read(path).unwrap().first() != Some(&b'{')).collect()
}

#[test]
fn through_a_directory() {
    let one = machine("layout-one", None);
    let dir = one.path("cache");
    let (id, _) = build(&one, &["--cache-to", &format!("type=local,dest={dir},mode=max")]);
    // A second name beside the first.
    build(&one, &["--cache-to", &format!("type=local,dest={dir},tag=other")]);
    let index = std::fs::read_to_string(one.0.join("cache/index.json")).unwrap();
    assert!(index.contains("\"latest\"") && index.contains("\"other\""), "{index}");
    let from = format!("type=local,src={dir}");
    let other = machine("layout-other", Some(&one));
    let (same, said) = build(&other, &["--cache-from", &from]);
    assert!(same == id && cached(&said) == 4, "{said}");
    // Blobs that are not what they are called are not used.
    let found = layers(Path::new(&dir));
    assert!(found.len() >= 4, "{found:?}");
    for blob in found {
        let mut bytes = std::fs::read(&blob).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(&blob, bytes).unwrap();
    }
    let third = machine("layout-third", Some(&one));
    let (another, said) = build(&third, &["--cache-from", &from]);
    assert!(another != id && cached(&said) == 0, "{said}");
    assert!(said.contains("warning: a cached layer cannot be used") && said.contains("digest"), "{said}");
    // Nor a manifest that was changed, nor one that is not there; and nothing leads out of the directory.
    for (name, text) in [("index.json", "{}"), ("index.json", "[")] {
        std::fs::write(one.0.join("cache").join(name), text).unwrap();
        let (_, said) =
            build(&third, &["--no-cache-filter", "x", "--build-arg", "X=1", "--cache-from", &from]);
        assert!(!said.contains("importing"), "{said}");
    }
    std::fs::remove_file(one.0.join("cache/index.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", one.0.join("cache/index.json")).unwrap();
    let fourth = machine("layout-fourth", Some(&one));
    let (_, said) = build(&fourth, &["--cache-from", &from]);
    assert!(said.contains("warning: no cache from"), "{said}");
    for flag in ["type=gha", "type=registry", "mode=max"] {
        assert_eq!(one.run(&["build", "--cache-to", flag, "context"]).code, 1, "{flag}");
    }
}
