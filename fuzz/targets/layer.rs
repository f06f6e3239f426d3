//! Tars, plain or compressed, unpacked below a directory: nothing appears beside it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::BufReader;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use store::tree::{Unpack, Whiteouts, stream, unpack};

static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
    let place = std::env::temp_dir().join(format!("fuzz-layer-{}", std::process::id()));
    std::fs::create_dir_all(&place).expect("a directory");
    std::fs::write(place.join("canary"), "unharmed").expect("a file");
    place
});

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let root = PLACE.join("root");
    std::fs::create_dir(&root).expect("a new directory");
    let how = Unpack {
        whiteouts: if first & 1 == 0 { Whiteouts::Overlay } else { Whiteouts::Plain },
        owner: (first & 2 != 0).then_some((7, 7)),
        keep_kinds: first & 4 != 0,
    };
    let dir = sys::fs::open_root(&root).expect("it opens");
    if let Ok(plain) = stream::guarded(bytes) {
        // Sparse files may be as long as they like; a megabyte of them is enough here.
        let _ = unpack(dir.as_fd(), BufReader::new(std::io::Read::take(plain, 1 << 20)), &how);
    }
    drop(dir);
    std::fs::remove_dir_all(&root).expect("it is removed");
    let names: Vec<_> = std::fs::read_dir(&*PLACE).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["canary"]);
    assert_eq!(std::fs::read(PLACE.join("canary")).expect("it is there"), b"unharmed");
});
