//! Older forms: fig's and version 1's files (every key a service), version 2's and 3's keys that have other names now.

use crate::error::{Error, Result};
use crate::node::{Entry, Node, Value};

/// Whether a file has no `services`: its keys are services.
pub fn is_first(node: &Node) -> bool {
    let Some(map) = node.as_map() else { return false };
    let current = ["services", "include", "networks", "volumes", "secrets", "configs", "version"];
    if map.is_empty() || current.iter().any(|key| map.get(*key).is_some_and(|entry| !is_service(&entry.node)))
    {
        return false;
    }
    let mut own = map.iter().filter(|(key, _)| !crate::schema::is_extension(key)).peekable();
    own.peek().is_some() && own.all(|(_, entry)| is_service(&entry.node))
}

fn is_service(node: &Node) -> bool {
    ["image", "build", "extends"]
        .iter()
        .any(|key| node.get(key).is_some_and(|value| value.scalar().is_some() || *key == "extends"))
}

/// A file in the specification's form.
pub fn current(mut node: Node) -> Result<Node> {
    let first = is_first(&node);
    if first {
        let place = node.place.clone();
        let Value::Map(map) = node.value else { return Ok(node) };
        let (extensions, services): (Vec<_>, Vec<_>) =
            map.into_iter().partition(|(key, _)| crate::schema::is_extension(key));
        let services = Node::new(Value::Map(services.into_iter().collect()), &place);
        node = Node::new(Value::Map(extensions.into_iter().collect()), &place);
        node.set("services", services);
    }
    let names: Vec<String> = node
        .get("services")
        .and_then(Node::as_map)
        .map(|map| map.keys().cloned().collect())
        .unwrap_or_default();
    let mut volumes = Vec::new();
    if let Some(services) = node.get_mut("services").and_then(Node::as_map_mut) {
        for entry in services.values_mut() {
            service(&mut entry.node, &names, first)?;
            if first {
                volumes.extend(undeclared(&entry.node));
            }
        }
    }
    if first && !volumes.is_empty() {
        let place = node.place.clone();
        let one = |name: String| {
            let own = Node::map([("name".to_owned(), Node::text(name.clone(), &place))], &place);
            (name, own)
        };
        // Version 1 has no project volumes: a name is the volume's own.
        node.set("volumes", Node::map(volumes.into_iter().map(one), &place));
    }
    Ok(node)
}

fn undeclared(service: &Node) -> Vec<String> {
    let items = service.get("volumes").and_then(Node::as_list).unwrap_or_default();
    let named = |item: &Node| {
        let line = item.scalar()?;
        let (source, _) = line.split_once(':')?;
        (!source.starts_with(['/', '.', '~'])).then(|| source.to_owned())
    };
    items.iter().filter_map(named).collect()
}

fn service(node: &mut Node, names: &[String], first: bool) -> Result<()> {
    let place = node.place.clone();
    let Some(map) = node.as_map_mut() else { return Ok(()) };
    let taken = |map: &mut crate::node::Map, key: &str| map.remove(key).map(|entry| entry.node);
    // `dockerfile` beside `build`.
    if let Some(dockerfile) = taken(map, "dockerfile") {
        let build =
            taken(map, "build").ok_or_else(|| Error::at(&dockerfile.place, "dockerfile needs a build"))?;
        let mut long = match &build.value {
            Value::Map(_) => build,
            _ => Node::map([("context".to_owned(), build)], &place),
        };
        long.set("dockerfile", dockerfile);
        map.insert("build".to_owned(), Entry { place: place.clone(), node: long });
    }
    let (driver, options) = (taken(map, "log_driver"), taken(map, "log_opt"));
    if driver.is_some() || options.is_some() {
        let parts = [("driver", driver), ("options", options)];
        let parts = parts.into_iter().filter_map(|(key, node)| Some((key.to_owned(), node?)));
        map.insert("logging".to_owned(), Entry { place: place.clone(), node: Node::map(parts, &place) });
    }
    if let Some(net) = taken(map, "net") {
        let text = net.scalar().unwrap_or_default();
        let mode = match text.strip_prefix("container:") {
            Some(name) if names.iter().any(|known| known == name) => format!("service:{name}"),
            _ => text,
        };
        map.insert(
            "network_mode".to_owned(),
            Entry { place: net.place.clone(), node: Node::text(mode, &net.place) },
        );
    } else if first && !map.contains_key("networks") {
        // Version 1 knows Docker's own bridge and links alone.
        let bridge = Node::text("bridge", &place);
        map.entry("network_mode".to_owned()).or_insert(Entry { place: place.clone(), node: bridge });
    }
    let driver =
        map.remove("volume_driver").filter(|driver| driver.node.scalar().as_deref() != Some("local"));
    if let Some(driver) = driver {
        return Err(Error::at(
            &driver.place,
            "volume_driver is not supported: name the driver at the volume",
        ));
    }
    if let Some(Entry { node: Node { value: Value::List(items), .. }, .. }) = map.get_mut("volumes_from") {
        for item in items.iter_mut().filter(|_| first) {
            let text = item.scalar().unwrap_or_default();
            let name = text.split(':').next().unwrap_or_default();
            // Version 1 names services and containers alike.
            if !names.iter().any(|known| known == name) && name != "container" {
                item.value = Value::Text(format!("container:{text}"));
            }
        }
    }
    Ok(())
}
