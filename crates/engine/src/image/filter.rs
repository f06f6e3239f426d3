//! Lists of images: filters, who uses them, what they share.

use model::digest::chain_id;
use model::filter::Filters;
use model::time::Timestamp;
use model::{Digest, Error, Reference, Result};
use std::collections::{BTreeMap, HashMap};

use super::Image;
use crate::Engine;

/// An image in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The image, with those of its names that the filters let pass.
    pub image: Image,
    /// Containers made from it, if they were counted.
    pub containers: Option<u64>,
    /// Bytes of layers that other images have too, if they were added up.
    pub shared: Option<u64>,
}

const KEYS: [&str; 8] =
    ["dangling", "label", "label!", "before", "since", "until", "reference", "deprecated"];

impl Engine {
    /// Images that the filters `dangling`, `label`, `before`, `since`, `until` and `reference` let pass, newest first.
    ///
    /// # Errors
    /// An unknown filter, or an image that a filter names does not exist.
    pub fn images(&self, filters: &Filters, count_containers: bool, add_shared: bool) -> Result<Vec<Listed>> {
        filters.check(&KEYS[..7])?;
        let dangling = filters.boolean("dangling")?;
        let created = |name: &String| Ok::<_, Error>(self.store.image(name)?.config.created);
        let before = filters.get("before").iter().map(created).collect::<Result<Vec<_>>>()?;
        let since = filters.get("since").iter().map(created).collect::<Result<Vec<_>>>()?;
        let until =
            filters.get("until").iter().map(|text| moment(text, crate::now())).collect::<Result<Vec<_>>>()?;
        let all = self.store.images()?;
        let shared = if add_shared { Some(Shared::of(&all)) } else { None };
        let users = if count_containers { Some(self.image_users()?) } else { None };
        let mut listed = Vec::new();
        for mut image in all {
            let at = image.config.created;
            let in_time = before.iter().all(|other| at < *other)
                && since.iter().all(|other| at > *other)
                && until.iter().all(|moment| at < Some(*moment));
            if !in_time
                || !labels_pass(filters, &image)
                || dangling.is_some_and(|wanted| wanted != image.tags.is_empty())
            {
                continue;
            }
            let patterns = filters.get("reference");
            if !patterns.is_empty() {
                let pass = |reference: &Reference| patterns.iter().any(|pattern| matches(pattern, reference));
                image.tags.retain(pass);
                image.repo_digests.retain(pass);
                if image.tags.is_empty() && image.repo_digests.is_empty() {
                    continue;
                }
            }
            let containers =
                users.as_ref().map(|users| users.get(&image.id).map_or(0, |users| users.len() as u64));
            let shared = shared.as_ref().map(|shared| shared.bytes(self, &image)).transpose()?;
            listed.push(Listed { image, containers, shared });
        }
        Ok(listed)
    }
}

pub(super) fn labels_pass(filters: &Filters, image: &Image) -> bool {
    let none = BTreeMap::new();
    let labels = image.config.config.labels.as_ref().unwrap_or(&none);
    filters.labels("label", labels) && filters.labels_absent("label!", labels)
}

/// How many images have a layer.
struct Shared(HashMap<Digest, u32>);

impl Shared {
    fn of(images: &[Image]) -> Self {
        let mut count = HashMap::new();
        for chain in images.iter().flat_map(chains) {
            *count.entry(chain).or_default() += 1;
        }
        Self(count)
    }
    fn bytes(&self, engine: &Engine, image: &Image) -> Result<u64> {
        let mut bytes = 0;
        for chain in chains(image) {
            if self.0.get(&chain).is_some_and(|&count| count > 1) {
                bytes += engine.store.layer(&chain)?.map_or(0, |layer| layer.size);
            }
        }
        Ok(bytes)
    }
}

/// The chain ids of an image's layers, lowest first.
pub(super) fn chains(image: &Image) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::new();
    for diff_id in &image.config.rootfs.diff_ids {
        chains.push(chain_id(chains.last(), diff_id));
    }
    chains
}

/// Docker's `until`: a duration before now (`24h`, `1h30m`), or a time.
pub(super) fn moment(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Some(nanos) = duration(text) {
        let at = i128::from(now.seconds) * 1_000_000_000 + i128::from(now.nanos) - nanos;
        let seconds = at.div_euclid(1_000_000_000);
        let seconds =
            i64::try_from(seconds).map_err(|_| Error::invalid(format!("invalid filter 'until={text}'")))?;
        return Ok(Timestamp { seconds, nanos: at.rem_euclid(1_000_000_000) as u32 });
    }
    Timestamp::parse_query(text).ok_or_else(|| Error::invalid(format!("invalid filter 'until={text}'")))
}

/// Go's durations, in nanoseconds: `1.5h`, `2m30s`, `100ms`.
fn duration(text: &str) -> Option<i128> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |end| digits + end);
        let (_, scale) = UNITS.iter().find(|(unit, _)| *unit == &rest[digits..unit_end])?;
        total += value * scale;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total as i128)
}

/// Docker's `reference` filter: the pattern fits the whole familiar reference, or its name.
fn matches(pattern: &str, reference: &Reference) -> bool {
    glob(pattern.as_bytes(), reference.familiar().as_bytes())
        || glob(pattern.as_bytes(), reference.familiar_name().as_bytes())
}

/// Go's `path.Match`: `*` and `?` do not match a slash; `[a-z]`, `[^x]`, `\` escapes.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where the last star was, and from which place of the text it was tried: no recursion, no blow-up.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) => text.get(t).and_then(|&byte| one(&pattern[p..], byte)),
        };
        if let Some(length) = step {
            p += length;
            t += 1;
            continue;
        }
        match star {
            Some((after, from)) if from < text.len() && text[from] != b'/' => {
                star = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Whether the first element of a pattern takes this byte, and how long the element is.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => (byte != b'/').then_some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', class @ ..] => {
            let close = class.iter().skip(1).position(|&c| c == b']')? + 1;
            let (inside, negated) = match &class[..close] {
                [b'^', rest @ ..] => (rest, true),
                all => (all, false),
            };
            let mut found = false;
            let mut rest = inside;
            while let [low, tail @ ..] = rest {
                let (high, next) = match tail {
                    [b'-', high, next @ ..] => (*high, next),
                    next => (*low, next),
                };
                found |= (*low..=high).contains(&byte);
                rest = next;
            }
            (found != negated).then_some(close + 2)
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_as_in_go() {
        for (pattern, text, fits) in [
            ("busybox*", "busybox:latest", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b?sy[a-c]ox", "busybox", true),
            ("[^a]x", "ax", false),
            ("a*b*c", "aXbXbXc", true),
            ("a\\*", "a*", true),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn moments_are_durations_or_times() {
        let now = Timestamp { seconds: 10_000, nanos: 0 };
        assert_eq!(moment("1h30m", now).unwrap(), Timestamp { seconds: 4_600, nanos: 0 });
        assert_eq!(moment("1.5s", now).unwrap(), Timestamp { seconds: 9_998, nanos: 500_000_000 });
        assert_eq!(moment("5000", now).unwrap(), Timestamp { seconds: 5_000, nanos: 0 });
        assert!(moment("soon", now).is_err());
    }
}
