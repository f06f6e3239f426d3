//! `--cache-from` and `--cache-to`: caches that travel.

use crate::fail::{Failure, file};
use crate::options::mount::fields;
use serde_json::{Value, json};
use std::path::Path;

/// Types that buildx knows and this builder does not.
const FOREIGN: [&str; 3] = ["gha", "s3", "azblob"];

/// What the flags ask for, as `more` of a build has it.
#[derive(Debug, Default, PartialEq)]
pub struct Caches {
    from: Vec<Value>,
    to: Vec<Value>,
    inline: bool,
}

impl Caches {
    /// Reads the flags.
    ///
    /// # Errors
    /// A type or a key that does not exist, or a directory that cannot be found.
    pub fn parse(from: &[String], to: &[String]) -> Result<Self, Failure> {
        let mut caches = Self::default();
        for text in from.iter().filter(|text| !text.is_empty()) {
            let flag = Flag::parse("--cache-from", text, &["ref", "src", "tag", "digest"])?;
            caches.from.push(match flag.kind.as_str() {
                "registry" => json!({ "reference": flag.needed("ref")? }),
                "local" => {
                    let dir = flag.needed("src")?;
                    // What is not there yet is a cache of nothing: the first build of a series.
                    let dir = std::path::absolute(dir).map_err(file("resolve", dir.as_ref()))?;
                    let tag = flag.get("digest").or(flag.get("tag")).unwrap_or("latest");
                    json!({ "directory": dir, "tag": tag })
                }
                _ => return Err(flag.unknown()),
            });
        }
        for text in to.iter().filter(|text| !text.is_empty()) {
            let flag = Flag::parse("--cache-to", text, &["ref", "dest", "tag", "mode", "ignore-error"])?;
            let place = match flag.kind.as_str() {
                "inline" => {
                    caches.inline = true;
                    continue;
                }
                "registry" => json!({ "reference": flag.needed("ref")? }),
                "local" => {
                    let dir = flag.needed("dest")?;
                    let dir = std::path::absolute(dir).map_err(file("resolve", Path::new(dir)))?;
                    json!({ "directory": dir, "tag": flag.get("tag").unwrap_or("latest") })
                }
                _ => return Err(flag.unknown()),
            };
            let max = match flag.get("mode").unwrap_or("min") {
                "min" => false,
                "max" => true,
                other => return Err(flag.wrong(&format!("mode={other} is neither min nor max"))),
            };
            let ignored = flag.get("ignore-error") == Some("true");
            caches.to.push(json!({ "place": place, "max": max, "ignore_error": ignored }));
        }
        Ok(caches)
    }
    /// Adds them to what a build is asked.
    pub fn onto(self, more: &mut Value) {
        more["cache_from"] = Value::from(self.from);
        more["cache_to"] = Value::from(self.to);
        more["inline_cache"] = Value::from(self.inline);
    }
}

struct Flag<'a> {
    name: &'static str,
    text: &'a str,
    kind: String,
    pairs: Vec<(String, String)>,
}

impl<'a> Flag<'a> {
    fn parse(name: &'static str, text: &'a str, known: &[&str]) -> Result<Self, Failure> {
        let mut flag = Flag { name, text, kind: String::new(), pairs: Vec::new() };
        if !text.contains('=') {
            flag.kind = if text == "inline" { "inline" } else { "registry" }.to_owned();
            flag.pairs.push(("ref".to_owned(), text.to_owned()));
            return Ok(flag);
        }
        for field in fields(text)? {
            match field.split_once('=') {
                Some(("type", kind)) => kind.clone_into(&mut flag.kind),
                Some((key, value)) if known.contains(&key) => {
                    flag.pairs.push((key.to_owned(), value.to_owned()))
                }
                // What is always so here: a manifest of OCI's media types, layers as the store has them or gzipped.
                Some(("image-manifest" | "oci-mediatypes", "true")) => {}
                Some(("compression", "gzip" | "uncompressed") | ("force-compression", "false")) => {}
                _ if FOREIGN.contains(&flag.kind.as_str()) => return Err(flag.unknown()),
                _ => return Err(flag.wrong(&format!("{field} is not supported"))),
            }
        }
        if flag.kind.is_empty() {
            return Err(flag.wrong("type is required"));
        }
        Ok(flag)
    }
    fn get(&self, key: &str) -> Option<&str> {
        let found = self.pairs.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
    fn needed(&self, key: &str) -> Result<&str, Failure> {
        self.get(key).ok_or_else(|| self.wrong(&format!("{key} is required")))
    }
    fn unknown(&self) -> Failure {
        self.wrong(&format!("type {} is not supported: registry, local or inline", self.kind))
    }
    fn wrong(&self, why: &str) -> Failure {
        Failure::new(format!("invalid {} \"{}\": {why}", self.name, self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        let one = |text: &str| [text.to_owned()];
        let caches = Caches::parse(
            &["user/app:cache".to_owned(), "type=local,src=/c,digest=sha256:x".to_owned()],
            &["type=registry,ref=r/x,mode=max,ignore-error=true".to_owned(), "type=inline".to_owned()],
        )
        .unwrap();
        assert_eq!(
            caches.from,
            [json!({ "reference": "user/app:cache" }), json!({ "directory": "/c", "tag": "sha256:x" })]
        );
        assert_eq!(
            caches.to,
            [json!({ "place": { "reference": "r/x" }, "max": true, "ignore_error": true })]
        );
        assert!(caches.inline);
        for from in [
            "type=registry",
            "type=local,dest=/x",
            "type=gha,scope=x",
            "type=inline",
            "ref=x",
            "type=registry,ref=x,mode=max",
        ] {
            assert!(Caches::parse(&one(from), &[]).is_err(), "{from}");
        }
        for to in ["type=local", "type=registry,ref=x,mode=some", "type=s3,bucket=x", "type=local,src=/x"] {
            assert!(Caches::parse(&[], &one(to)).is_err(), "{to}");
        }
    }
}
