//! A syntax tree and a value to text.

use super::parse::{Node, Operand, Pipeline};
use super::{function, print};
use serde_json::Value;

/// What an expression gives: a value, or a field that is not there (an error only where it is printed).
#[derive(Clone, Debug)]
pub(super) enum Datum {
    Value(Value),
    Missing(String),
}

impl Datum {
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Missing(_) => false,
            Self::Value(value) => truth(value),
        }
    }
    /// The value; one that is missing is null.
    pub(super) fn value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Missing(_) => Value::Null,
        }
    }
}

pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Whether a loop goes on.
pub(super) enum Flow {
    On,
    Break,
    Continue,
}

/// Variables and the mode.
pub(super) struct Scope<'a> {
    /// `$`.
    root: &'a Value,
    variables: Vec<(String, Value)>,
    /// Rendering a table's headers.
    header: bool,
}

/// Fields that Docker leaves out of its JSON when they are empty, printed as Go prints a nil pointer.
const OPTIONAL: &[&str] = &[
    "ClusterVolume",
    "Descriptor",
    "Health",
    "Healthcheck",
    "HostRoot",
    "IPAMConfig",
    "SizeRootFs",
    "SizeRw",
    "StopTimeout",
    "UsageData",
];
/// Sets that the API leaves out where they are empty.
const MAPS: &[&str] = &[
    "Annotations",
    "Containers",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];
/// Lists that the API leaves out, or has as null, where they are empty.
const LISTS: &[&str] = &[
    "Aliases",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Layers",
    "Links",
    "MaskedPaths",
    "Mounts",
    "OnBuild",
    "ReadonlyPaths",
    "RepoDigests",
    "RepoTags",
    "SecurityOpt",
    "Shell",
    "Test",
    "Ulimits",
    "VolumesFrom",
];
/// Texts that the API leaves out where they are empty.
const EMPTY: &[&str] = &[
    "Author",
    "Comment",
    "Driver",
    "From",
    "ID",
    "MacAddress",
    "Name",
    "Source",
    "Status",
    "StopSignal",
    "Variant",
];

impl<'a> Scope<'a> {
    pub(super) fn new(root: &'a Value, header: bool) -> Self {
        Self { root, variables: Vec::new(), header }
    }

    pub(super) fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<Flow, String> {
        let depth = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot, out)?;
            if !matches!(flow, Flow::On) {
                break;
            }
        }
        self.variables.truncate(depth);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value, out: &mut String) -> Result<Flow, String> {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Action(Some(name), pipeline) => {
                let value = self.pipeline(pipeline, dot)?.value();
                self.assign(name, value);
            }
            Node::Action(None, pipeline) => match self.pipeline(pipeline, dot)? {
                Datum::Value(value) => out.push_str(&print::value(&value)),
                Datum::Missing(name) => out.push_str(&missing(&name)?),
            },
            Node::If(test, body, otherwise) => {
                let branch = if self.pipeline(test, dot)?.truth() { body } else { otherwise };
                return self.nodes(branch, dot, out);
            }
            Node::With(name, pipeline, body, otherwise) => {
                let value = self.pipeline(pipeline, dot)?;
                if !value.truth() {
                    return self.nodes(otherwise, dot, out);
                }
                let value = value.value();
                let depth = self.variables.len();
                if let Some(name) = name {
                    self.variables.push((name.clone(), value.clone()));
                }
                let flow = self.nodes(body, &value, out);
                self.variables.truncate(depth);
                return flow;
            }
            Node::Range(names, pipeline, body, otherwise) => {
                let value = self.pipeline(pipeline, dot)?.value();
                return self.range(names, &value, body, otherwise, dot, out);
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn assign(&mut self, name: &str, value: Value) {
        self.variables.push((name.to_owned(), value));
    }

    fn range(
        &mut self,
        names: &[String],
        value: &Value,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
        out: &mut String,
    ) -> Result<Flow, String> {
        let items: Vec<(Value, Value)> = match value {
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, item)| (Value::from(at), item.clone())).collect()
            }
            Value::Object(map) => {
                let mut keys: Vec<&String> = map.keys().filter(|key| !hidden(key)).collect();
                keys.sort();
                keys.into_iter().map(|key| (Value::from(key.as_str()), map[key].clone())).collect()
            }
            Value::Number(number) => {
                (0..number.as_u64().unwrap_or(0)).map(|at| (Value::from(at), Value::from(at))).collect()
            }
            Value::Null => Vec::new(),
            other => return Err(format!("range can't iterate over {}", print::value(other))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot, out);
        }
        for (key, item) in items {
            let depth = self.variables.len();
            match names {
                [one] => self.variables.push((one.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                [] => {}
            }
            let flow = self.nodes(body, &item, out);
            self.variables.truncate(depth);
            if matches!(flow?, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline(&mut self, commands: &Pipeline, dot: &Value) -> Result<Datum, String> {
        let mut last = None;
        for command in commands {
            last = Some(self.command(command, dot, last)?);
        }
        last.ok_or_else(|| "empty command".to_owned())
    }

    fn command(&mut self, words: &[Operand], dot: &Value, last: Option<Datum>) -> Result<Datum, String> {
        let Some((first, rest)) = words.split_first() else { return Err("empty command".to_owned()) };
        match first {
            Operand::Function(name) => {
                let mut arguments = Vec::with_capacity(rest.len() + 1);
                for word in rest {
                    let datum = self.operand(word, dot)?;
                    // `and` and `or` stop at the first argument that decides.
                    let decided = (name == "or" && datum.truth()) || (name == "and" && !datum.truth());
                    arguments.push(datum);
                    if decided {
                        return Ok(arguments.pop().unwrap_or(Datum::Value(Value::Null)));
                    }
                }
                arguments.extend(last);
                function::call(name, arguments, self.header)
            }
            Operand::Field(chain) if !rest.is_empty() || last.is_some() => {
                let mut arguments = Vec::new();
                for word in rest {
                    arguments.push(self.operand(word, dot)?.value());
                }
                arguments.extend(last.map(Datum::value));
                self.method(chain, &arguments, dot)
            }
            other if rest.is_empty() && last.is_none() => self.operand(other, dot),
            _ => Err("can't give argument to non-function".to_owned()),
        }
    }

    /// `.Label "name"`, the one method that Docker's listings have.
    fn method(&self, chain: &[String], arguments: &[Value], dot: &Value) -> Result<Datum, String> {
        match (chain, arguments) {
            ([name], [Value::String(label)]) if name == "Label" => Ok(Datum::Value(if self.header {
                Value::from(label.rsplit(['.', '-', '_']).next().unwrap_or(label))
            } else {
                dot[LABELS].get(label).cloned().unwrap_or_else(|| Value::from(""))
            })),
            _ => Err(format!("{} has arguments but cannot be invoked as function", chain.join("."))),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Datum, String> {
        match operand {
            Operand::Literal(value) => Ok(Datum::Value(value.clone())),
            Operand::Dot => Ok(Datum::Value(dot.clone())),
            Operand::Field(chain) => self.find(dot, chain),
            Operand::Variable(name, chain) if name == "$" => self.find(self.root, chain),
            Operand::Variable(name, chain) => {
                let found = self.variables.iter().rev().find(|(variable, _)| variable == name);
                let (_, value) = found.ok_or_else(|| format!("undefined variable \"{name}\""))?;
                self.find(value, chain)
            }
            Operand::Function(name) => function::call(name, Vec::new(), self.header),
            Operand::Group(pipeline, chain) => {
                let value = self.pipeline(pipeline, dot)?;
                self.walk(value, chain)
            }
        }
    }

    /// Follows a chain of fields; only what is at its end is copied.
    fn find(&self, mut at: &Value, chain: &[String]) -> Result<Datum, String> {
        for (index, name) in chain.iter().enumerate() {
            match at.as_object().and_then(|map| map.get(name).or_else(|| go_name(map, name))) {
                Some(value) => at = value,
                None if at.is_object() && !self.header => {
                    return self.walk(Datum::Missing(name.clone()), &chain[index + 1..]);
                }
                None => return self.walk(Datum::Value(at.clone()), &chain[index..]),
            }
        }
        Ok(match chain.last() {
            // Docker's structures know of which kind it would be.
            Some(name)
                if at.is_null() && (LISTS.contains(&name.as_str()) || MAPS.contains(&name.as_str())) =>
            {
                Datum::Missing(name.clone())
            }
            _ => Datum::Value(at.clone()),
        })
    }

    fn walk(&self, mut datum: Datum, chain: &[String]) -> Result<Datum, String> {
        for name in chain {
            datum = match datum {
                Datum::Value(Value::Object(mut map)) => {
                    match map.remove(name).or_else(|| go_name(&map, name).cloned()) {
                        Some(value) => Datum::Value(value),
                        None if self.header => Datum::Value(Value::from(name.to_uppercase())),
                        None => Datum::Missing(name.clone()),
                    }
                }
                Datum::Value(Value::Null) => Datum::Missing(name.clone()),
                Datum::Missing(parent) => Datum::Missing(format!("{parent}.{name}")),
                Datum::Value(_) if self.header => Datum::Value(Value::from(name.to_uppercase())),
                Datum::Value(other) => {
                    return Err(format!("can't evaluate field {name} in {}", print::value(&other)));
                }
            };
        }
        Ok(datum)
    }
}

/// A field by its name in Go, where that differs from the name on the wire in its letters' case: `.APIVersion` is
/// `ApiVersion`, `.ID` is `Id`.
fn go_name<'a>(map: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a Value> {
    let is_field = |name: &str| name.starts_with(|first: char| first.is_ascii_uppercase());
    let same = |key: &String| is_field(name) && is_field(key) && key.eq_ignore_ascii_case(name);
    map.iter().find(|(key, _)| same(key)).map(|(_, value)| value)
}

/// The key under which a listing keeps an object's labels for `.Label`; not printed.
pub const LABELS: &str = "\u{0}labels";

pub(super) fn hidden(key: &str) -> bool {
    key.starts_with('\u{0}')
}

fn missing(name: &str) -> Result<String, String> {
    if OPTIONAL.contains(&name) {
        return Ok("<nil>".to_owned());
    }
    if EMPTY.contains(&name) {
        return Ok(String::new());
    }
    if MAPS.contains(&name) {
        return Ok("map[]".to_owned());
    }
    if LISTS.contains(&name) {
        return Ok("[]".to_owned());
    }
    if name.starts_with(|c: char| c.is_ascii_uppercase()) {
        return Err(format!("executing \"\" at <.{name}>: map has no entry for key \"{name}\""));
    }
    Ok("<no value>".to_owned())
}
