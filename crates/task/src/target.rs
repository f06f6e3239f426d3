//! Which running containers are a task's targets, from the engine's list. Pure.

use crate::definition::Each;
use serde_json::Value;

/// The label of every container that a task made, with the task's name.
pub const TASK_LABEL: &str = "cauldron.task";
/// The label with the run's id.
pub const RUN_LABEL: &str = "cauldron.task.run";

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";

/// A running container that a task runs for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// Its image as it was named.
    pub image: String,
    /// Its compose project, or nothing.
    pub project: String,
    /// Its compose service, or nothing.
    pub service: String,
    /// `host`, `none`, `container:ID`, or a network.
    pub mode: String,
    /// Its networks with its address on each.
    pub networks: Vec<(String, String)>,
    /// Its ports, published or not: number and protocol, ascending.
    pub ports: Vec<(u16, String)>,
}

/// The targets among the entries of `/containers/json`, by name. Containers that tasks made are none.
pub fn select(containers: &Value, each: &Each, project: &str) -> Vec<Target> {
    let mut targets: Vec<Target> = containers
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["Labels"][TASK_LABEL].is_null() && matches(entry, each, project))
        .map(target)
        .collect();
    targets.sort_by_cached_key(|target| natural(&target.name));
    targets
}

/// What a selection is, for a person: `label role=database`.
pub fn describe(each: &Each) -> String {
    let lists = [
        ("label", &each.label),
        ("name", &each.name),
        ("network", &each.network),
        ("service", &each.service),
        ("image", &each.image),
    ];
    let parts: Vec<String> = lists
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(what, list)| format!("{what} {}", list.join(", ")))
        .collect();
    parts.join(" and ")
}

fn matches(entry: &Value, each: &Each, project: &str) -> bool {
    let any =
        |list: &[String], test: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|item| test(item));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = &entry["Labels"];
    let label = |wanted: &String| match wanted.split_once('=') {
        Some((key, value)) => labels[key].as_str() == Some(value),
        None => labels[wanted.as_str()].is_string(),
    };
    let service = |wanted: &str| {
        labels[SERVICE].as_str() == Some(wanted)
            && (project.is_empty() || labels[PROJECT].as_str() == Some(project))
    };
    let image = |wanted: &str| {
        let (named, id) = (text(&entry["Image"]), text(&entry["ImageID"]));
        let tagless = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
        tagless(&named) == tagless(wanted)
            || id == wanted
            || wanted.len() >= 12 && id.trim_start_matches("sha256:").starts_with(wanted)
    };
    each.label.iter().all(label)
        && any(&each.name, &|pattern| glob(pattern, &name(entry)))
        && any(&each.network, &|network| entry["NetworkSettings"]["Networks"].get(network).is_some())
        && any(&each.service, &service)
        && any(&each.image, &image)
}

fn name(entry: &Value) -> String {
    // A link's name has a second slash.
    let names = entry["Names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let own = names.map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    own.unwrap_or_default().to_owned()
}

fn target(entry: &Value) -> Target {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let networks = entry["NetworkSettings"]["Networks"].as_object().into_iter().flatten();
    let mut ports: Vec<(u16, String)> = entry["Ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| Some((u16::try_from(port["PrivatePort"].as_u64()?).ok()?, text(&port["Type"]))))
        .collect();
    ports.sort();
    ports.dedup();
    Target {
        id: text(&entry["Id"]),
        name: name(entry),
        image: text(&entry["Image"]),
        project: text(&entry["Labels"][PROJECT]),
        service: text(&entry["Labels"][SERVICE]),
        mode: text(&entry["HostConfig"]["NetworkMode"]),
        networks: networks.map(|(name, endpoint)| (name.clone(), text(&endpoint["IPAddress"]))).collect(),
        ports,
    }
}

/// `*` and `?`.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Digits as numbers, so that db-10 comes after db-9.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        parts.push((text.to_owned(), tail[..end].parse().unwrap_or(0)));
        rest = &tail[end..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn containers() -> Value {
        let one = |name: &str, labels: Value, network: &str| {
            json!({
                "Id": format!("{name}-id"), "Names": [format!("/{name}"), format!("/other/{name}")], "Image": "mariadb-plain",
                "ImageID": "sha256:0123456789abcdef", "Labels": labels, "HostConfig": {"NetworkMode": network},
                "NetworkSettings": {"Networks": {network: {"IPAddress": "10.0.0.2"}}},
                "Ports": [{"PrivatePort": 3306, "Type": "tcp"}, {"PrivatePort": 80, "Type": "tcp"}, {"PrivatePort": 80, "Type": "tcp"}],
            })
        };
        json!([
            one("db-10", json!({"role": "database", PROJECT: "shop", SERVICE: "db"}), "shop_default"),
            one("db-9", json!({"role": "database", PROJECT: "shop", SERVICE: "db"}), "shop_default"),
            one("web", json!({"role": "web"}), "bridge"),
            one("other", json!({"role": "database", PROJECT: "other", SERVICE: "db"}), "other_default"),
            one("run", json!({"role": "database", TASK_LABEL: "backup"}), "bridge"),
        ])
    }
    fn names(each: &Each, project: &str) -> Vec<String> {
        select(&containers(), each, project).into_iter().map(|target| target.name).collect()
    }
    fn list(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn selections() {
        let label = Each { label: list("role=database"), ..Each::default() };
        assert_eq!(names(&label, ""), ["db-9", "db-10", "other"]);
        assert_eq!(names(&Each { network: list("shop_default"), ..label.clone() }, ""), ["db-9", "db-10"]);
        assert_eq!(names(&Each { name: list("db-*"), ..Each::default() }, ""), ["db-9", "db-10"]);
        assert_eq!(names(&Each { service: list("db"), ..Each::default() }, "shop"), ["db-9", "db-10"]);
        assert_eq!(names(&Each { service: list("db"), ..Each::default() }, ""), ["db-9", "db-10", "other"]);
        assert_eq!(
            names(
                &Each { image: list("mariadb-plain:latest"), label: list("role=web"), ..Each::default() },
                ""
            ),
            ["web"]
        );
        assert_eq!(
            names(&Each { image: list("0123456789ab"), label: list("role"), ..Each::default() }, "").len(),
            4
        );
        assert!(names(&Each { label: list("role=nothing"), ..Each::default() }, "").is_empty());
    }

    #[test]
    fn a_target() {
        let target = &select(&containers(), &Each { name: list("web"), ..Each::default() }, "")[0];
        assert_eq!(target.ports, [(80, "tcp".to_owned()), (3306, "tcp".to_owned())]);
        assert_eq!(target.networks, [("bridge".to_owned(), "10.0.0.2".to_owned())]);
        assert_eq!((target.id.as_str(), target.mode.as_str()), ("web-id", "bridge"));
    }

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("?b*", "ab", true),
            ("ab", "abc", false),
            ("*a*a", "aa", true),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }
}
