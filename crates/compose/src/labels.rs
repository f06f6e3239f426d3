//! Docker Compose's labels: by them either tool knows the other's projects.

use crate::body::{Which, texts};
use crate::project::{Dict, Project, Service};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;

/// The project's name.
pub const PROJECT: &str = "com.docker.compose.project";
/// The service's name.
pub const SERVICE: &str = "com.docker.compose.service";
/// The container's number in its service.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// `True` for containers of `run`.
pub const ONEOFF: &str = "com.docker.compose.oneoff";
/// What the container was made from.
pub const HASH: &str = "com.docker.compose.config-hash";
/// The id of its image.
pub const IMAGE: &str = "com.docker.compose.image";
/// `service:condition:restart`, separated by commas.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// The project's directory.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// The project's files, separated by commas.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// A network's key.
pub const NETWORK: &str = "com.docker.compose.network";
/// A volume's key.
pub const VOLUME: &str = "com.docker.compose.volume";
/// Which volume it is, on engines that do not say: another for each that is made.
pub const IDENTITY: &str = "cauldron.volume";
const ENVIRONMENT_FILE: &str = "com.docker.compose.project.environment_file";
const VERSION: &str = "com.docker.compose.version";

fn common(project: &Project, own: &Dict) -> HashMap<String, String> {
    let mut labels = texts(own);
    labels.insert(PROJECT.to_owned(), project.name.clone());
    labels.insert(VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    labels
}

/// A network's labels.
pub fn network(project: &Project, key: &str, own: &Dict) -> HashMap<String, String> {
    let mut labels = common(project, own);
    labels.insert(NETWORK.to_owned(), key.to_owned());
    labels
}

/// A volume's labels.
pub fn volume(project: &Project, key: &str, own: &Dict) -> HashMap<String, String> {
    let mut labels = common(project, own);
    labels.insert(VOLUME.to_owned(), key.to_owned());
    labels
}

/// A container's labels.
pub fn container(
    project: &Project,
    service: &Service,
    which: &Which,
    image_id: &str,
) -> HashMap<String, String> {
    let mut labels = common(project, &service.labels);
    let joined = |paths: &[std::path::PathBuf]| {
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
    };
    let depends: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, need)| format!("{name}:{}:{}", need.condition.name(), need.restart))
        .collect();
    let more = [
        (SERVICE, service.name.clone()),
        (NUMBER, which.number.to_string()),
        (ONEOFF, if which.oneoff { "True" } else { "False" }.to_owned()),
        (HASH, hash(project, service)),
        (IMAGE, image_id.to_owned()),
        (DEPENDS_ON, depends.join(",")),
        (WORKING_DIR, project.directory.to_string_lossy().into_owned()),
        (CONFIG_FILES, joined(&project.files)),
    ];
    labels.extend(more.map(|(key, value)| (key.to_owned(), value)));
    if !project.env_files.is_empty() {
        labels.insert(ENVIRONMENT_FILE.to_owned(), joined(&project.env_files));
    }
    labels
}

/// A digest of what a container of the service is made from. Stable as long as the tree is: keys that change no container
/// (`build`, `scale`, `depends_on`, `profiles`, `develop`, extensions) are not in it, nor is what a secret says.
pub fn hash(project: &Project, service: &Service) -> String {
    let mut tree = project.node(&service.name).map(|node| node.json()).unwrap_or_default();
    if let Some(map) = tree.as_object_mut() {
        let aside = [
            "build",
            "scale",
            "depends_on",
            "profiles",
            "develop",
            "pull_policy",
            "attach",
            "post_start",
            "pre_stop",
            "pre_start",
        ];
        map.retain(|key, value| !aside.contains(&key.as_str()) && !key.starts_with("x-") && !value.is_null());
        if let Some(deploy) = map.get_mut("deploy").and_then(serde_json::Value::as_object_mut) {
            deploy.remove("replicas");
        }
        map.insert("image".to_owned(), service.image_name(&project.name).into());
    }
    let mut hash = Sha256::new();
    hash.update(tree.to_string());
    for config in &service.configs {
        if let Some(content) =
            project.configs.get(&config.source).and_then(|config| config.content.as_deref())
        {
            hash.update([0]);
            hash.update(content);
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
