//! The house rules that a compiler does not check: who may import whom, where `unsafe` may stand, which licences may come in.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The borders: a crate and the crates of this workspace that it may import.
const BORDERS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("sys", &[]),
    ("store", &["model", "sys"]),
    ("net", &["model", "sys"]),
    ("runtime", &["model", "sys"]),
    ("engine", &["model", "sys", "store", "net", "runtime"]),
    ("api", &["engine"]),
    ("client", &["api"]),
    ("compose", &["client"]),
    ("task", &["client", "compose"]),
    ("cauldron", &["client", "compose", "task", "api", "runtime"]),
];

/// Crates that only the named ones may use.
const RESERVED: &[(&str, &[&str])] = &[
    ("tokio", &["api", "client", "compose", "task", "cauldron"]),
    ("hyper", &["api", "client", "cauldron"]),
    ("axum", &["api", "client"]),
    ("bollard", &["client", "cauldron"]),
    ("clap", &["cauldron"]),
];

/// Licences that may be linked into an Apache-2.0 binary without further duties than naming them.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "0BSD",
    "bzip2-1.0.6",
    "CDLA-Permissive-2.0",
    "CC0-1.0",
    "BSL-1.0",
    "MIT-0",
    "Apache-2.0 WITH LLVM-exception",
    "OpenSSL",
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-musl",
        ])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn members(metadata: &Value) -> BTreeMap<String, Vec<String>> {
    let ours = metadata["workspace_members"].as_array().unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| ours.contains(&package["id"]))
        .map(|package| {
            let imports = package["dependencies"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
                .collect();
            (package["name"].as_str().unwrap().to_owned(), imports)
        })
        .collect()
}

#[test]
fn crates_import_only_what_lies_below_them() {
    let members = members(&metadata());
    assert_eq!(members.len(), BORDERS.len(), "a new crate needs its border here: {:?}", members.keys());
    for (name, allowed) in BORDERS {
        for import in &members[*name] {
            assert!(
                !members.contains_key(import) || allowed.contains(&import.as_str()),
                "{name} must not import {import}"
            );
            for (reserved, users) in RESERVED {
                assert!(import != reserved || users.contains(name), "{name} must not use {reserved}");
            }
        }
    }
}

#[test]
fn licences_are_permissive() {
    let metadata = metadata();
    let mut refused = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or("none").replace('/', " OR ");
        let one_side = |side: &str| {
            side.split(" AND ")
                .all(|part| LICENCES.contains(&part.trim_matches(|c| c == '(' || c == ')' || c == ' ')))
        };
        let allowed = licence.split(" OR ").any(one_side) || {
            // "(A OR B) AND C": every bracketed part has an allowed choice.
            licence.split(" AND ").all(|part| {
                part.trim_matches(|c| c == '(' || c == ')')
                    .split(" OR ")
                    .any(|choice| LICENCES.contains(&choice.trim()))
            })
        };
        if !allowed {
            refused.push(format!("{} ({licence})", package["name"].as_str().unwrap()));
        }
    }
    assert!(refused.is_empty(), "licences not on the list: {refused:?}");
}

#[test]
fn unsafe_stands_in_sys_alone() {
    fn visit(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let guilty = text.lines().any(|line| {
                    let code = line.split("//").next().unwrap_or("");
                    code.contains("unsafe {")
                        || code.contains("unsafe fn")
                        || code.contains("unsafe impl")
                        || code.contains("allow(unsafe_code)")
                });
                if guilty {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(workspace().join("crates")).unwrap() {
        let crate_dir = entry.unwrap().path();
        if crate_dir.file_name().is_some_and(|name| name != "sys") {
            visit(&crate_dir.join("src"), &mut found);
        }
    }
    assert!(found.is_empty(), "unsafe outside crates/sys: {found:?}");
}
