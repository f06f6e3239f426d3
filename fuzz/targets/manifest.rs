//! Manifests, indexes and configurations of images.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::image::{ImageConfig, Index, Manifest};

fuzz_target!(|json: &[u8]| {
    if let Ok(manifest) = Manifest::parse(json) {
        assert!(Index::parse(json).is_ok_and(|index| index.manifests.is_empty()) || Index::parse(json).is_err());
        let written = serde_json::to_vec(&manifest).expect("it is written");
        assert_eq!(Manifest::parse(&written).expect("and read"), manifest);
    }
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(json) {
        let written = serde_json::to_vec(&config).expect("it is written");
        serde_json::from_slice::<ImageConfig>(&written).expect("and read");
    }
});
