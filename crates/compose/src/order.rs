//! Dependencies: what comes first, and what may be done at the same time.

use crate::error::Result;
use crate::project::Project;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::{BTreeMap, BTreeSet};

/// Every service, what is needed before what needs it.
pub fn by_need(project: &Project) -> Vec<String> {
    fn visit(project: &Project, name: &str, done: &mut BTreeSet<String>, out: &mut Vec<String>) {
        let Some(service) = project.services.get(name) else { return };
        if !done.insert(name.to_owned()) {
            return;
        }
        for need in service.depends_on.keys() {
            visit(project, need, done, out);
        }
        out.push(name.to_owned());
    }
    let (mut done, mut out) = (BTreeSet::new(), Vec::new());
    for name in project.services.keys() {
        visit(project, name, &mut done, &mut out);
    }
    out
}

/// For each of these services, those of them that it needs.
pub fn needs(project: &Project, names: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let one = |name: &String| {
        let depends = project.services.get(name).into_iter().flat_map(|service| service.depends_on.keys());
        (name.clone(), depends.filter(|need| names.contains(need)).cloned().collect())
    };
    names.iter().map(one).collect()
}

/// The same arrows, turned around.
pub fn turned(needs: &BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    let mut out: BTreeMap<String, BTreeSet<String>> =
        needs.keys().map(|name| (name.clone(), BTreeSet::new())).collect();
    for (name, before) in needs {
        for need in before {
            out.entry(need.clone()).or_default().insert(name.clone());
        }
    }
    out
}

/// Works on each name as soon as what is before it is done, `limit` at a time (0: all). The first failure ends it.
///
/// # Errors
/// What `work` gives.
pub async fn each<'a>(
    before: BTreeMap<String, BTreeSet<String>>,
    limit: usize,
    work: impl Fn(String) -> LocalBoxFuture<'a, Result<()>>,
) -> Result<()> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut open = before;
    let mut running: FuturesUnordered<LocalBoxFuture<'a, (String, Result<()>)>> = FuturesUnordered::new();
    loop {
        let ready: Vec<String> =
            open.iter().filter(|(_, before)| before.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in ready {
            if running.len() >= limit {
                break;
            }
            open.remove(&name);
            let done = work(name.clone());
            running.push(Box::pin(async move { (name, done.await) }));
        }
        let Some((name, outcome)) = running.next().await else { return Ok(()) };
        outcome?;
        for before in open.values_mut() {
            before.remove(&name);
        }
    }
}
