//! Filters as Docker's clients send them: `{"label":["a=b"]}` or, from old clients, `{"label":{"a=b":true}}`.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// Filter values by key. Values of one key are alternatives; keys must all hold (labels: all values must hold).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Parses the JSON text of a `filters` parameter; empty text is no filter.
    ///
    /// # Errors
    /// Neither of the two shapes.
    pub fn parse(text: &str) -> Result<Self> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Set(BTreeMap<String, bool>),
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let map: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|error| Error::invalid("invalid filter").caused_by(error))?;
        let values = |values| match values {
            Values::List(list) => list,
            Values::Set(set) => set.into_iter().filter_map(|(value, on)| on.then_some(value)).collect(),
        };
        Ok(Self(map.into_iter().map(|(key, list)| (key, values(list))).collect()))
    }
    /// Adds one value.
    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    /// The values of a key; empty where there is no such filter.
    pub fn get(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
    /// Whether any filter has this key.
    pub fn contains(&self, key: &str) -> bool {
        !self.get(key).is_empty()
    }
    /// Whether there is no filter at all.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Vec::is_empty)
    }
    /// Refuses keys that the request does not know, with Docker's text.
    ///
    /// # Errors
    /// Names the first unknown key.
    pub fn check(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
            None => Ok(()),
        }
    }
    /// No filter of this key, or one of its values is this.
    pub fn exact(&self, key: &str, value: &str) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|wanted| wanted == value)
    }
    /// The values of a key as regular expressions, found anywhere in a text; Docker reads `name` and `id` so. One that is
    /// malformed matches nothing.
    pub fn patterns(&self, key: &str) -> Patterns {
        let values = self.get(key);
        let read = |text: &String| regex_lite::RegexBuilder::new(text).size_limit(PATTERN_BYTES).build().ok();
        Patterns { any: values.is_empty(), list: values.iter().filter_map(read).collect() }
    }
    /// No filter of this key, or one of its values is a prefix of this.
    pub fn prefix(&self, key: &str, value: &str) -> bool {
        let values = self.get(key);
        values.is_empty() || values.iter().any(|wanted| value.starts_with(wanted.as_str()))
    }
    /// A yes-or-no filter (`dangling=true`): `None` where it is absent.
    ///
    /// # Errors
    /// The value is neither.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            [] => Ok(None),
            [value] if value == "1" || value.eq_ignore_ascii_case("true") => Ok(Some(true)),
            [value] if value == "0" || value.eq_ignore_ascii_case("false") => Ok(Some(false)),
            values => Err(Error::invalid(format!("invalid filter '{key}={}'", values.join(",")))),
        }
    }
    /// Whether every value of this key (`name` or `name=value`) holds for these labels.
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).iter().all(|wanted| label_holds(wanted, labels))
    }
    /// Whether no value of this key (`label!`) holds for these labels.
    pub fn labels_absent(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.get(key).iter().any(|wanted| label_holds(wanted, labels))
    }
}

/// Bytes that one compiled pattern may take.
const PATTERN_BYTES: usize = 256 << 10;

/// What [`Filters::patterns`] gives: read once, held against many texts.
#[derive(Debug)]
pub struct Patterns {
    any: bool,
    list: Vec<regex_lite::Regex>,
}

impl Patterns {
    /// No filter of this key, or one of its values is found in the text.
    pub fn hold(&self, text: &str) -> bool {
        self.any || self.list.iter().any(|pattern| pattern.is_match(text))
    }
    /// As [`Patterns::hold`] for a container's name, which people write with or without its slash.
    pub fn hold_name(&self, name: &str) -> bool {
        self.any || self.hold(name) || self.hold(&format!("/{name}"))
    }
}

fn label_holds(wanted: &str, labels: &BTreeMap<String, String>) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_shapes() {
        let list = Filters::parse(r#"{"label":["a=b","c"],"type":["container"]}"#).unwrap();
        let set =
            Filters::parse(r#"{"label":{"a=b":true,"c":true,"d":false},"type":{"container":true}}"#).unwrap();
        assert_eq!(list, set);
        assert!(Filters::parse("").unwrap().is_empty());
        assert!(Filters::parse("{}").unwrap().is_empty());
        assert!(Filters::parse("[1]").is_err());
    }

    #[test]
    fn names_are_regular_expressions() {
        for (pattern, hit) in [
            ("web", true),
            ("^web$", false),
            ("^/web-1$", true),
            ("^web-1$", true),
            ("eb-", true),
            ("^eb", false),
            ("1$", true),
            ("/web", true),
            ("/eb", false),
            ("w(e|x)b-[0-9]+", true),
            ("db|web", true),
            ("w.b", true),
            ("WEB", false),
            ("(?i)WEB", true),
            ("(", false),
        ] {
            let mut filters = Filters::default();
            filters.add("name", pattern);
            assert_eq!(filters.patterns("name").hold_name("web-1"), hit, "{pattern}");
        }
        assert!(Filters::default().patterns("name").hold("x"));
    }

    #[test]
    fn matches_as_docker_does() {
        let filters = Filters::parse(r#"{"label":["a=b","c"],"id":["abc"],"dangling":["true"]}"#).unwrap();
        let labels =
            |text: &[(&str, &str)]| text.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert!(filters.labels("label", &labels(&[("a", "b"), ("c", "x")])));
        assert!(!filters.labels("label", &labels(&[("a", "x"), ("c", "x")])));
        assert!(filters.prefix("id", "abcdef") && !filters.prefix("id", "ab"));
        assert!(filters.exact("none", "anything"));
        assert_eq!(filters.boolean("dangling").unwrap(), Some(true));
        assert_eq!(filters.check(&["label", "id"]).unwrap_err().to_string(), "invalid filter 'dangling'");
    }
}
