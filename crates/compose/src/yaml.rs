//! YAML to trees: events, anchors, merge keys, limits. Reading only what was given, evaluating nothing.

use crate::error::{Error, Result};
use crate::node::{Entry, Map, Node, Place, Tag, Value};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of one file at most.
pub const FILE_BYTES: usize = 4 * 1024 * 1024;
/// Nesting at most.
const DEPTH: usize = 64;
/// Values of one file at most, each use of an alias counted in full: a "billion laughs" file ends here.
const NODES: usize = 200_000;

/// The documents of a file.
///
/// # Errors
/// It is not YAML, a key is there twice, or it is beyond a limit.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Node>> {
    let whole = Place::whole(file);
    if bytes.len() > FILE_BYTES {
        return Err(Error::at(&whole, format!("larger than {FILE_BYTES} bytes")));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        Error::at(&Place { file: file.into(), line: line as u32, column: 1 }, "not UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Tree { file: file.into(), parser: Parser::new_from_str(text), anchors: HashMap::new(), count: 0 }
        .documents()
}

struct Tree<'a> {
    file: Arc<str>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// Anchored values, and how many values each holds.
    anchors: HashMap<usize, (Node, usize)>,
    count: usize,
}

impl<'a> Tree<'a> {
    fn place(&self, mark: Marker) -> Place {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { file: Arc::clone(&self.file), line: number(mark.line()), column: number(mark.col() + 1) }
    }

    fn next(&mut self) -> Result<(Event<'a>, Place)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let place = self.place(span.start);
                Ok((event, place))
            }
            Some(Err(error)) => Err(Error::at(&self.place(*error.marker()), error.info().to_owned())),
            None => Ok((Event::StreamEnd, Place::whole(&self.file))),
        }
    }

    fn documents(mut self) -> Result<Vec<Node>> {
        let mut out = Vec::new();
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(out),
                (Event::DocumentStart(_), _) => {
                    self.anchors.clear();
                    let (event, place) = self.next()?;
                    out.push(self.node(event, place, 0)?);
                }
                _ => {}
            }
        }
    }

    fn counted(&mut self, count: usize, place: &Place) -> Result<()> {
        self.count += count;
        if self.count > NODES {
            return Err(Error::at(place, format!("more than {NODES} values, aliases counted in full")));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, place: Place, depth: usize) -> Result<Node> {
        if depth > DEPTH {
            return Err(Error::at(&place, format!("nested deeper than {DEPTH} levels")));
        }
        self.counted(1, &place)?;
        let before = self.count;
        let (anchor, tag, value) = match event {
            Event::Alias(id) => {
                let known = self.anchors.get(&id).cloned();
                let (node, count) =
                    known.ok_or_else(|| Error::at(&place, "an alias inside of its own anchor"))?;
                self.counted(count, &place)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let core = tag.as_ref().filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.clone());
                let text = text.into_owned();
                let plain = style == ScalarStyle::Plain && core.as_deref() != Some("str");
                (anchor, tag, if plain { Value::Plain(text) } else { Value::Text(text) })
            }
            Event::SequenceStart(anchor, tag) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, place) => items.push(self.node(event, place, depth + 1)?),
                    }
                }
                (anchor, tag, Value::List(items))
            }
            Event::MappingStart(anchor, tag) => (anchor, tag, Value::Map(self.map(depth)?)),
            _ => (0, None, Value::Null),
        };
        let tag = match tag.as_deref().map(|tag| (tag.handle.as_str(), tag.suffix.as_str())) {
            Some(("!", "reset")) => Tag::Reset,
            Some(("!", "override")) => Tag::Override,
            _ => Tag::None,
        };
        let node = Node { value, place, tag };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.count - before));
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Map> {
        let mut map = Map::new();
        let mut merged: Vec<Node> = Vec::new();
        loop {
            let (event, place) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let plain = matches!(&event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = self.node(event, place.clone(), depth + 1)?;
            let key = match &key.value {
                Value::Text(text) | Value::Plain(text) => text.clone(),
                _ => return Err(Error::at(&place, "a key must be a string")),
            };
            let (event, value_place) = self.next()?;
            let node = self.node(event, value_place, depth + 1)?;
            if key == "<<" && plain {
                merged.push(node);
                continue;
            }
            if map.contains_key(&key) {
                return Err(Error::at(&place, format!("mapping key \"{key}\" already defined")));
            }
            map.insert(key, Entry { place, node });
        }
        for node in merged {
            let place = node.place.clone();
            let sources = match node.value {
                Value::List(items) => items,
                _ => vec![node],
            };
            for source in sources {
                let Value::Map(source) = source.value else {
                    return Err(Error::at(&place, "map merge requires map or sequence of maps as the value"));
                };
                for (key, entry) in source {
                    map.entry(key).or_insert(entry);
                }
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        match parse("f.yaml", text.as_bytes()) {
            Ok(documents) => {
                documents.iter().map(|node| node.json().to_string()).collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn trees() {
        let table = [
            ("a: 1\nb: [x, 'y', \"1\"]", r#"{"a":1,"b":["x","y","1"]}"#),
            ("a: &x {k: v, l: w}\nb: {<<: *x, l: z}", r#"{"a":{"k":"v","l":"w"},"b":{"k":"v","l":"z"}}"#),
            ("b: {<<: [{a: 1}, {a: 2, c: 3}]}", r#"{"b":{"a":1,"c":3}}"#),
            ("a: |\n  one\n  two\n", r#"{"a":"one\ntwo\n"}"#),
            ("a: 1\n---\nb: 2", r#"{"a":1} {"b":2}"#),
            ("a: !!str 1", r#"{"a":"1"}"#),
            ("a: 1\na: 2", "f.yaml:2:1: mapping key \"a\" already defined"),
            ("a:\n  <<: 3", "f.yaml:2:7: map merge requires map or sequence of maps as the value"),
        ];
        for (text, want) in table {
            assert_eq!(json(text), want, "{text}");
        }
        assert!(json("a: [1").starts_with("f.yaml:"), "{}", json("a: [1"));
    }

    #[test]
    fn limits() {
        let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, before) in ["b", "c", "d", "e", "f", "g"].iter().zip(["a", "b", "c", "d", "e", "f"]) {
            laughs.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(",")));
        }
        assert!(json(&laughs).contains("more than 200000 values"));
        assert!(json(&"[".repeat(100)).contains("nested deeper"));
        assert!(parse("f", &vec![b'#'; FILE_BYTES + 1]).is_err());
        assert!(json("a: &a [*a]").contains("an alias inside"));
    }

    #[test]
    fn tags() {
        let node = parse("f", b"a: !reset null\nb: !override [x]").unwrap().remove(0);
        assert_eq!(node.get("a").unwrap().tag, Tag::Reset);
        assert_eq!(node.get("b").unwrap().tag, Tag::Override);
    }
}
