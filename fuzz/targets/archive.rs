//! Archives of `docker save` and OCI layouts: what is refused leaves no image.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;
use store::Store;
use store::layout::Layout;

static PLACE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("fuzz-archive-{}", std::process::id())));

fuzz_target!(|bytes: &[u8]| {
    let layout = Layout { root: PLACE.join("root"), run_root: PLACE.join("run") };
    let store = Store::open(layout).expect("it opens");
    let loaded = store.load(bytes, &|_| Ok(()));
    let images = store.images().expect("they are listed").len();
    match loaded {
        Ok(loaded) => assert!(images <= loaded.len().max(1)),
        Err(error) => drop(error.to_string()),
    }
    std::fs::remove_dir_all(&*PLACE).expect("it is removed");
});
