//! `doctor`: what a crash, a reboot or a person left behind.

use super::image::only_here;
use crate::args::{Given, flag, format};
use crate::cli::{VERB, Verb};
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::render::size;
use crate::session::Session;
use clap::ArgMatches;
use client::{Method, query};
use serde_json::Value;

pub const VERBS: &[Verb] = &[Verb {
    group: "",
    top: &["doctor"],
    about: "Find what a crash or a reboot left behind, and mend it",
    more: "Looks for containers whose record and reality differ, and for mounts, processes, control groups, interfaces, \
           firewall tables, leases, names, sockets, half-written files, layers and blobs that nobody owns any more. Other \
           commands recover what they meet by themselves; doctor looks at everything at once.\n\n\
           Exit code: 0 if nothing was found or all of it was mended, 1 if something is left.\n\n\
           Examples:\n  cauldron doctor\n  cauldron doctor --fix\n  cauldron doctor --verify --format json",
    args: || {
        vec![
            flag("fix", "", "Mend what is found"),
            flag("verify", "", "Read every blob and compare it with its digest"),
            format(),
        ]
    },
    run: |session, given| Box::pin(doctor(session, given)),
    ..VERB
}];

const FINDINGS: Listing =
    Listing { table: "{{.State}}\t{{.Kind}}\t{{.Object}}\t{{.Problem}}\t{{.Remedy}}", headers: &[] };

async fn doctor(session: Session, given: ArgMatches) -> Outcome {
    let bit = |name: &str| if given.on(name) { "1".to_owned() } else { String::new() };
    let path = query("/cauldron/v1/doctor", [("fix", bit("fix")), ("verify", bit("verify"))]);
    let report = session.client()?.json(Method::POST, &path, None).await.map_err(only_here)?;
    let findings = report["Findings"].as_array().cloned().unwrap_or_default();
    let left = findings.iter().filter(|found| found["State"] != "fixed").count();
    match given.text("format").filter(|format| !format.is_empty()) {
        Some(format) => {
            let style = Style { format: Some(format), ..Style::default() };
            session.out(&FINDINGS.render(&findings, &style).map_err(Failure::new)?)?;
        }
        None => session.out(&told(&findings))?,
    }
    for skipped in report["Skipped"].as_array().into_iter().flatten() {
        session.say(&format!("not looked at: {}", skipped.as_str().unwrap_or_default()));
    }
    if let (Some(blobs), Some(bytes)) =
        (report["Verified"]["Blobs"].as_u64(), report["Verified"]["Bytes"].as_u64())
    {
        #[allow(clippy::cast_precision_loss)]
        session.say(&format!("verified {blobs} blobs, {}", size::human_with(bytes as f64, 4)));
    }
    session.say(&verdict(findings.len(), left, given.on("fix")));
    Ok(u8::from(left > 0))
}

/// A paragraph a finding.
fn told(findings: &[Value]) -> String {
    let mut out = String::new();
    for found in findings {
        let text = |key: &str| found[key].as_str().unwrap_or_default();
        out.push_str(&format!("{} {}: {}\n", text("Kind"), text("Object"), text("Problem")));
        let line = match (text("State"), text("Error")) {
            ("fixed", _) => format!("  done: {}", text("Remedy")),
            ("failed", error) => format!("  failed to {}: {error}", text("Remedy")),
            ("manual", _) => format!("  by hand: {}", text("Remedy")),
            _ => format!("  --fix would {}", text("Remedy")),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn verdict(found: usize, left: usize, fixing: bool) -> String {
    match (found, left, fixing) {
        (0, ..) => "nothing found".to_owned(),
        (_, 0, _) => format!("{found} found, all mended"),
        (_, _, true) => format!("{found} found, {} mended, {left} left", found - left),
        (_, _, false) => format!("{found} found; `cauldron doctor --fix` mends what can be mended"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn findings_are_told() {
        let found = |state: &str, error: Option<&str>| json!({"Kind": "name", "Object": "web", "Problem": "its container is gone", "Remedy": "free it", "State": state, "Error": error});
        assert_eq!(told(&[found("fixed", None)]), "name web: its container is gone\n  done: free it\n");
        assert!(told(&[found("failed", Some("busy"))]).ends_with("  failed to free it: busy\n"));
        assert!(told(&[found("found", None)]).ends_with("  --fix would free it\n"));
        assert_eq!(verdict(3, 1, true), "3 found, 2 mended, 1 left");
    }
}
