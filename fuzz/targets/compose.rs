//! Compose files, from bytes to a project.
#![no_main]

use compose::{Environment, Request};
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let read = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
        Some("compose.yaml" | "other.yaml") => Ok(bytes.to_vec()),
        Some(".env" | "env") => Ok(b"A=1\nB=${A}2\n".to_vec()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let request = Request {
        cwd: "/p".into(),
        files: Vec::new(),
        directory: None,
        name: None,
        profiles: vec!["*".to_owned()],
        env_files: Vec::new(),
        environment: Environment::from([("HOME".to_owned(), "/root".to_owned())]),
        interpolate: true,
        resolve_environment: true,
        services: Vec::new(),
        read: &read,
    };
    match compose::load(&request) {
        Ok(project) => drop(compose::order::by_need(&project)),
        Err(error) => drop(error.to_string()),
    }
});
