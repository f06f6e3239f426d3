//! What is fetched: URLs of files and of git repositories, as contexts, in `ADD` and in `--build-context`.

use crate::{Error, Result};

/// Whether this names something to get by HTTP (a git repository may be, too: see [`Git::parse`]).
pub fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// A git repository, what of it, and where below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    /// For git itself: a URL, or `user@host:path`.
    pub url: String,
    /// A branch, a tag or a commit; `None` is the remote's `HEAD`.
    pub reference: Option<String>,
    /// A directory of it.
    pub subdir: Option<String>,
    /// It lies on this machine (`file://`).
    pub local: bool,
}

impl Git {
    /// Recognises `https://host/x.git`, `git://…`, `ssh://…`, `user@host:path`, `file://…` and `github.com/…`, each with
    /// `#REF[:SUBDIR]` or `?ref=…&subdir=…`.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, fragment) = text.split_once('#').map_or((text, ""), |(rest, fragment)| (rest, fragment));
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) if rest.contains("://") => (place, query),
            _ => (rest, ""),
        };
        let named = place.trim_end_matches('/').ends_with(".git");
        let local = place.starts_with("file://");
        let url = if (is_http(place) && named)
            || place.starts_with("git://")
            || place.starts_with("ssh://")
            || local
        {
            place.to_owned()
        } else if place.starts_with("github.com/") {
            format!("https://{place}")
        } else if scp_like(place) {
            place.to_owned()
        } else {
            return None;
        };
        let filled = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let (mut reference, mut subdir) =
            fragment.split_once(':').map_or((filled(fragment), None), |(r, s)| (filled(r), filled(s)));
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=')? {
                ("ref" | "branch" | "tag" | "commit", value) => reference = filled(value),
                ("subdir", value) => subdir = filled(value),
                _ => return None,
            }
        }
        Some(Self { url, reference, subdir, local })
    }
    /// Nothing of it may be read as an option or as a helper of git's.
    ///
    /// # Errors
    /// It may.
    pub fn checked(self) -> Result<Self> {
        let refused =
            |what: &str, text: &str| Error::invalid(format!("git repository: invalid {what} {text:?}"));
        let odd = |text: &str| text.starts_with('-') || text.contains(|c: char| c.is_control() || c == ' ');
        // `ext::sh -c …` is a command (gitremote-helpers(7)).
        if odd(&self.url) || self.url.contains("::") {
            return Err(refused("URL", &self.url));
        }
        let host = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        // CVE-2017-1000117: a host that ssh takes for an option.
        if host.starts_with('-') || host.split('@').any(|part| part.starts_with('-')) {
            return Err(refused("host", host));
        }
        if let Some(reference) = self.reference.as_deref()
            && (odd(reference)
                || reference.contains(['~', '^', ':', '\\', '*', '?', '['])
                || reference.contains(".."))
        {
            return Err(refused("reference", reference));
        }
        Ok(self)
    }
    /// Whether the reference is a whole commit id.
    pub fn commit(&self) -> Option<&str> {
        self.reference
            .as_deref()
            .filter(|text| matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

/// `git@host:path`: a user, a host without a slash, and no scheme.
fn scp_like(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    plain(user) && plain(host) && !path.is_empty() && !path.starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_recognised() {
        for (text, url, reference, subdir) in [
            ("https://h/x.git", "https://h/x.git", None, None),
            ("https://h/x.git#v1:docs/a", "https://h/x.git", Some("v1"), Some("docs/a")),
            ("https://h/x.git#:docs", "https://h/x.git", None, Some("docs")),
            ("https://h/x.git?ref=v1&subdir=docs", "https://h/x.git", Some("v1"), Some("docs")),
            ("git://h/x", "git://h/x", None, None),
            ("ssh://git@h/x#main", "ssh://git@h/x", Some("main"), None),
            ("git@h.org:me/x.git#main", "git@h.org:me/x.git", Some("main"), None),
            ("github.com/a/b", "https://github.com/a/b", None, None),
            ("file:///srv/x", "file:///srv/x", None, None),
        ] {
            let git = Git::parse(text).unwrap_or_else(|| panic!("{text}")).checked().unwrap();
            assert_eq!(
                (git.url.as_str(), git.reference.as_deref(), git.subdir.as_deref()),
                (url, reference, subdir)
            );
        }
        for text in
            ["https://h/x.tar.gz", "a/b", ".", "name@host", "a:b", "https://h/x.git?other=1", "/x@y:z"]
        {
            assert_eq!(Git::parse(text), None, "{text}");
        }
        for bad in [
            "ssh://-oProxyCommand=x/y",
            "https://h/x.git#--upload-pack=x",
            "git://h/a::b",
            "git@-x:y",
            "git://h/x#a..b",
        ] {
            assert!(Git::parse(bad).is_none_or(|git| git.checked().is_err()), "{bad}");
        }
    }
}
