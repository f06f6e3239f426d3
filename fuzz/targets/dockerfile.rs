//! Dockerfiles, from text to a plan, and ignore files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::dockerfile::{plan::Plan, scope::{Global, Platforms}};
use model::ignore::Ignore;
use std::collections::{BTreeMap, BTreeSet};

fuzz_target!(|text: &str| {
    if let Ok(dockerfile) = model::dockerfile::parse("Dockerfile", text) {
        let platform = model::image::Platform { architecture: "amd64".into(), os: "linux".into(), variant: None };
        let given = BTreeMap::from([("V".to_owned(), "2".to_owned())]);
        let platforms = Platforms { build: &platform, target: &platform };
        if let Ok(global) = Global::new(&dockerfile.global_args, &given, platforms, "", dockerfile.escape) {
            let _ = Plan::new(&dockerfile, &global, "", &BTreeSet::new(), ("Dockerfile", text));
        }
    }
    if let Ok(ignore) = Ignore::parse(text) {
        for path in ["a", "a/b/c", "node_modules/x", "src/main.rs", ".git/config"] {
            let _ = (ignore.excludes(path), ignore.may_include_below(path));
        }
    }
});
