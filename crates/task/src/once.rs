//! Helpers: what prepares a volume, once.
//!
//! The ledger lies with the volume. On Cauldron a helper works on a draft of it; when it succeeded the draft and a mark take the
//! volume's place in one rename, so that neither is ever there without the other: a helper that fails or is killed leaves
//! the volume as it was, and one that was killed after its success is found done. A volume that is made again has no marks.
//!
//! Other engines have neither drafts nor marks: there the ledger is the table `marks` of the history, keyed by the volume's name
//! and a label that it gets when we or `up` make it (one that somebody else made has its name alone); the helper works on the volume itself, and one that was killed half-way asks for a decision.
//!
//! The lock `once-<volume>` keeps a second helper out, also one of another command.

use crate::definition::Overlap;
use crate::error::{Error, Result};
use crate::history::History;
use crate::run::{Ask, Event, Outcome, Runner, STOPPED, Task};
use client::{Client, Method, encode, query};
use jiff::Timestamp;
use rusqlite::params;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// The label of a helper's container: the volume that it works on.
pub const ONCE_LABEL: &str = "cauldron.once";

/// A helper and its volume.
#[derive(Clone, Debug)]
pub struct Helper {
    /// The task.
    pub task: Task,
    /// The volume's name at the engine.
    pub volume: String,
    /// The migration's number.
    pub version: Option<u64>,
    /// Its name in the ledger; steps of one service share theirs.
    pub ledger: String,
    /// What makes it another helper, beside its image; the whole container unless it says less.
    pub inputs: Option<Value>,
}

/// What a helper did on a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The helper.
    pub helper: String,
    /// Image, command and inputs in one.
    pub digest: String,
    /// The migration's number.
    pub version: Option<u64>,
    /// The image's digest.
    pub image: String,
    /// `done`, or `running` where an engine without drafts was left half-way.
    pub state: String,
    /// When, as RFC 3339.
    pub at: String,
}

/// A volume as the ledger knows it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// A new one for each volume, also one of the same name.
    pub identity: String,
    /// Whether the engine has drafts, and keeps marks with the volume.
    pub atomic: bool,
    /// What was done.
    pub marks: Vec<Mark>,
}

/// What came of asking for a helper.
#[derive(Clone, Debug)]
pub enum Done {
    /// It was done before.
    Before(Mark),
    /// It ran and succeeded.
    Now(Outcome),
}

impl Helper {
    /// Image, command and inputs in one; of a migration its number alone.
    pub fn digest(&self, image_id: &str) -> String {
        if let Some(version) = self.version {
            return format!("version:{version}");
        }
        let mut body = self.inputs.as_ref().unwrap_or(&self.task.body).clone();
        if let Some(map) = body.as_object_mut() {
            // What a name or a tool adds is no input.
            for key in ["Labels", "Hostname", "NetworkingConfig", "Image"] {
                map.remove(key);
            }
        }
        let hash = Sha256::new()
            .chain_update(image_id)
            .chain_update([0])
            .chain_update(canonical(&body).to_string())
            .finalize();
        hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
    }
    /// Its name for `cauldron helper`.
    pub fn command(&self) -> &str {
        self.ledger.split_once('/').map_or(self.ledger.as_str(), |(_, name)| name)
    }
    fn done<'a>(&self, ledger: &'a Ledger, digest: &str) -> Option<&'a Mark> {
        ledger.marks.iter().find(|mark| mark.helper == self.ledger && mark.digest == digest)
    }
}

/// Without what is empty, keys in order: the same for the same container.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let keep = |(key, value): (&String, &Value)| {
                let value = canonical(value);
                let empty = match &value {
                    Value::Null => true,
                    Value::Object(map) => map.is_empty(),
                    Value::Array(list) => list.is_empty(),
                    Value::String(text) => text.is_empty(),
                    Value::Bool(on) => !on,
                    Value::Number(_) => false,
                };
                (!empty).then(|| (key.clone(), value))
            };
            let sorted: std::collections::BTreeMap<String, Value> = map.iter().filter_map(keep).collect();
            Value::Object(sorted.into_iter().collect::<Map<String, Value>>())
        }
        Value::Array(list) => Value::Array(list.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

/// Reads a volume's ledger; makes the volume if there is none.
///
/// # Errors
/// The engine or the history does not answer.
pub async fn ledger(client: &Client, history: &History, volume: &str) -> Result<Ledger> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = format!("/volumes/{}", encode(volume));
    let made = match client.get(&path).await {
        Err(error) if error.status() == Some(404) => {
            let mut body = json!({ "Name": volume });
            if !compose::apply::delivers(client).await.map_err(|error| Error::new(error.to_string()))? {
                body["Labels"] = json!({ compose::labels::IDENTITY: crate::run::new_id()? });
                // Nothing that was done before was done on this one.
                history.forget_volume(volume)?;
            }
            client.json(Method::POST, "/volumes/create", Some(&body)).await?
        }
        found => found?,
    };
    match client.get(&format!("/cauldron/v1/volumes/{}", encode(volume))).await {
        Ok(found) => {
            let marks = found["Marks"].as_array().into_iter().flatten().map(|mark| Mark {
                helper: text(&mark["Helper"]),
                digest: text(&mark["Digest"]),
                version: mark["Version"].as_u64(),
                image: text(&mark["Image"]),
                state: "done".to_owned(),
                at: text(&mark["At"]),
            });
            Ok(Ledger { identity: text(&found["Id"]), atomic: true, marks: marks.collect() })
        }
        Err(error) if error.status() == Some(404) => {
            // One that somebody else made has its name alone: its CreatedAt is when it was last written to.
            let identity = format!("{volume}@{}", text(&made["Labels"][compose::labels::IDENTITY]));
            let marks = history.marks(&identity)?;
            Ok(Ledger { identity, atomic: false, marks })
        }
        Err(error) => Err(error.into()),
    }
}

/// What a helper is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Run unless it was done.
    #[default]
    Once,
    /// Run whatever was done.
    Again,
}

/// Runs helpers of one volume in the order of their versions, those without one first, each unless it was done. The last of them
/// is the one that was asked for.
///
/// # Errors
/// A helper failed, with its last lines; the volume is then as it was, where the engine can do that. Or one was left
/// half-way earlier and a decision is needed.
pub async fn run(
    runner: &Runner<'_>,
    helpers: &[Helper],
    wish: Wish,
    stop: watch::Receiver<bool>,
) -> Result<Vec<(Helper, Done)>> {
    let mut helpers = helpers.to_vec();
    helpers.sort_by_key(|helper| helper.version);
    let Some(volume) = helpers.first().map(|helper| helper.volume.clone()) else { return Ok(Vec::new()) };
    let Some(_only) = runner.home.wait_lock_unless(&format!("once-{volume}"), &stop).await? else {
        return Err(Error::new(format!("{STOPPED} while another helper works on volume {volume}")));
    };
    let last = helpers.len() - 1;
    let mut done = Vec::new();
    for (at, helper) in helpers.into_iter().enumerate() {
        let again = wish == Wish::Again && at == last;
        let what = one(runner, &helper, again, stop.clone()).await?;
        done.push((helper, what));
    }
    Ok(done)
}

async fn one(runner: &Runner<'_>, helper: &Helper, again: bool, stop: watch::Receiver<bool>) -> Result<Done> {
    let name = &helper.task.key;
    let ledger = ledger(&runner.client, &runner.history, &helper.volume).await?;
    let image = runner.client.get(&format!("/images/{}/json", encode(helper.task.image()))).await?;
    let image_id = image["Id"].as_str().unwrap_or_default();
    let digest = helper.digest(image_id);
    if let Some(mark) = helper.done(&ledger, &digest).filter(|_| !again) {
        if mark.state == "done" {
            return Ok(Done::Before(mark.clone()));
        }
        return Err(Error::new(format!(
            "helper {name} was interrupted on volume {} at {}, and this engine cannot take back what it did",
            helper.volume, mark.at
        ))
        .hint(format!(
            "look at the volume, then say `cauldron helper rerun {0}` to run it again or `cauldron helper accept {0}` to leave it as it is",
            helper.command()
        )));
    }
    in_order(helper, &ledger, again)?;
    tidy(&runner.client, &helper.volume).await?;
    let mark = Mark {
        helper: helper.ledger.clone(),
        digest,
        version: helper.version,
        image: image_id.to_owned(),
        state: "done".to_owned(),
        at: Timestamp::now().to_string(),
    };
    if ledger.atomic {
        on_a_draft(runner, helper, &mark, stop).await
    } else {
        in_place(runner, helper, &ledger, &mark, stop).await
    }
}

/// A migration does not come after one of a higher number.
fn in_order(helper: &Helper, ledger: &Ledger, again: bool) -> Result<()> {
    let Some(version) = helper.version else { return Ok(()) };
    let highest = ledger.marks.iter().filter_map(|mark| mark.version).max();
    match highest {
        Some(highest) if highest > version && !again => Err(Error::new(format!(
            "helper {} has version {version}, but volume {} is at version {highest} already",
            helper.task.key, helper.volume
        ))
        .hint(format!(
            "give it a higher version, or run it all the same: cauldron helper rerun {}",
            helper.command()
        ))),
        _ => Ok(()),
    }
}

/// Containers of helpers that were killed: nobody else works on the volume, we hold its lock.
async fn tidy(client: &Client, volume: &str) -> Result<()> {
    let filters = json!({"label": [format!("{ONCE_LABEL}={volume}")]}).to_string();
    let found =
        client.get(&query("/containers/json", [("all", "1".to_owned()), ("filters", filters)])).await?;
    for container in found.as_array().into_iter().flatten() {
        let id = container["Id"].as_str().unwrap_or_default();
        client.bytes(Method::DELETE, &format!("/containers/{id}?force=1&v=1"), None).await?;
    }
    Ok(())
}

async fn on_a_draft(
    runner: &Runner<'_>,
    helper: &Helper,
    mark: &Mark,
    stop: watch::Receiver<bool>,
) -> Result<Done> {
    let client = &runner.client;
    let path = format!("/cauldron/v1/volumes/{}/snapshot", encode(&helper.volume));
    let draft = client
        .json(Method::POST, &path, None)
        .await
        .map_err(|error| Error::from(error).within(format!("helper {}", helper.task.key)))?;
    let draft = draft["Name"].as_str().unwrap_or_default().to_owned();
    client::failpoint!("task: draft made");
    let outcome = work(runner, helper, &draft, stop).await;
    client::failpoint!("task: helper over");
    let succeeded = matches!(&outcome, Ok(outcome) if outcome.code == 0);
    if succeeded {
        let body = json!({"Helper": mark.helper, "Digest": mark.digest, "Version": mark.version, "Image": mark.image});
        let path = format!("/cauldron/v1/volumes/{}/commit", encode(&draft));
        let committed = client.json(Method::POST, &path, Some(&body)).await;
        committed.map_err(|error| Error::from(error).within(format!("helper {}", helper.task.key)))?;
        client::failpoint!("task: helper committed");
        return outcome.map(Done::Now);
    }
    let undone = client.post(&format!("/cauldron/v1/volumes/{}/rollback", encode(&draft))).await;
    let failed = match outcome {
        Ok(outcome) => failure(helper, &outcome, &format!("volume {} is as it was", helper.volume)),
        Err(error) => error,
    };
    match undone {
        Ok(()) => Err(failed),
        Err(error) => Err(failed.hint(format!("removing the draft {draft} also failed: {error}"))),
    }
}

async fn in_place(
    runner: &Runner<'_>,
    helper: &Helper,
    ledger: &Ledger,
    mark: &Mark,
    stop: watch::Receiver<bool>,
) -> Result<Done> {
    (runner.listener)(Event::Warning(format!(
        "helper {}: this engine cannot take back what a helper does; should it fail, volume {} stays as it left it",
        helper.task.key, helper.volume
    )));
    let running = Mark { state: "running".to_owned(), ..mark.clone() };
    runner.history.set_mark(&ledger.identity, &running)?;
    client::failpoint!("task: helper marked as running");
    let outcome = work(runner, helper, &helper.volume, stop).await;
    client::failpoint!("task: helper over, not marked");
    match outcome {
        Ok(outcome) if outcome.code == 0 => {
            runner.history.set_mark(&ledger.identity, mark)?;
            Ok(Done::Now(outcome))
        }
        other => {
            runner.history.forget_marks(&ledger.identity, &mark.helper)?;
            Err(match other {
                Ok(outcome) => {
                    failure(helper, &outcome, &format!("volume {} is as it left it", helper.volume))
                }
                Err(error) => error,
            })
        }
    }
}

fn failure(helper: &Helper, outcome: &Outcome, state: &str) -> Error {
    let why = outcome.error.clone().unwrap_or_else(|| format!("exit code {}", outcome.code));
    let error = Error::new(format!("helper {} failed: {why}; {state}", helper.task.key));
    match outcome.targets.first().map(|ended| ended.last_lines.as_str()) {
        Some(lines) if !lines.is_empty() => error.hint(lines),
        _ => error,
    }
}

/// Runs the helper with another volume in the place of its own.
async fn work(
    runner: &Runner<'_>,
    helper: &Helper,
    volume: &str,
    stop: watch::Receiver<bool>,
) -> Result<Outcome> {
    let mut task = helper.task.clone();
    task.definition.overlap = Overlap::Allow;
    if !replace(&mut task.body, &helper.volume, volume) {
        return Err(Error::new(format!(
            "helper {} does not mount volume {}",
            helper.task.key, helper.volume
        )));
    }
    task.body["Labels"][ONCE_LABEL] = helper.volume.clone().into();
    runner.run(&task, Ask { cause: "once".to_owned(), ..Ask::default() }, stop).await
}

/// Puts one volume in another's place among the mounts; whether it was there.
fn replace(body: &mut Value, from: &str, to: &str) -> bool {
    let mut found = false;
    let host = &mut body["HostConfig"];
    for bind in host["Binds"].as_array_mut().into_iter().flatten() {
        if let Some(rest) =
            bind.as_str().and_then(|text| text.strip_prefix(from)).filter(|rest| rest.starts_with(':'))
        {
            *bind = format!("{to}{rest}").into();
            found = true;
        }
    }
    for mount in host["Mounts"].as_array_mut().into_iter().flatten() {
        if mount["Type"] == "volume" && mount["Source"] == from {
            mount["Source"] = to.into();
            found = true;
        }
    }
    found
}

/// Forgets what a helper did, or all of them: it will run again.
///
/// # Errors
/// The engine or the history does not answer.
pub async fn forget(client: &Client, history: &History, volume: &str, helper: Option<&str>) -> Result<()> {
    let ledger = ledger(client, history, volume).await?;
    if ledger.atomic {
        let path = query(
            &format!("/cauldron/v1/volumes/{}/forget", encode(volume)),
            [("helper", helper.unwrap_or_default().to_owned())],
        );
        return Ok(client.post(&path).await?);
    }
    match helper {
        Some(helper) => history.forget_marks(&ledger.identity, helper),
        None => ledger.marks.iter().try_for_each(|mark| history.forget_marks(&ledger.identity, &mark.helper)),
    }
}

/// Takes a helper that was left half-way as done; what is left of its container goes.
///
/// # Errors
/// There is nothing to accept.
pub async fn accept(client: &Client, history: &History, helper: &Helper) -> Result<()> {
    let ledger = ledger(client, history, &helper.volume).await?;
    let key = &helper.ledger;
    match ledger.marks.iter().find(|mark| mark.helper == *key && mark.state != "done") {
        Some(mark) => {
            tidy(client, &helper.volume).await?;
            history.set_mark(&ledger.identity, &Mark { state: "done".to_owned(), ..mark.clone() })
        }
        None => Err(Error::new(format!("helper {key} was not interrupted on volume {}", helper.volume))),
    }
}

impl History {
    fn marks(&self, volume: &str) -> Result<Vec<Mark>> {
        self.select(
            "SELECT helper, digest, version, image, state, at FROM marks WHERE volume = ?1 ORDER BY at",
            params![volume],
            |row| {
                Ok(Mark {
                    helper: row.get(0)?,
                    digest: row.get(1)?,
                    version: row.get::<_, Option<i64>>(2)?.and_then(|version| u64::try_from(version).ok()),
                    image: row.get(3)?,
                    state: row.get(4)?,
                    at: Timestamp::from_microsecond(row.get(5)?).unwrap_or_default().to_string(),
                })
            },
        )
    }
    fn set_mark(&self, volume: &str, mark: &Mark) -> Result<()> {
        self.execute(
            "INSERT OR REPLACE INTO marks (volume, helper, digest, version, image, state, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                volume,
                mark.helper,
                mark.digest,
                mark.version.and_then(|version| i64::try_from(version).ok()),
                mark.image,
                mark.state,
                Timestamp::now().as_microsecond()
            ],
        )
    }
    fn forget_volume(&self, volume: &str) -> Result<()> {
        self.execute("DELETE FROM marks WHERE volume = ?1", params![format!("{volume}@")])
    }
    fn forget_marks(&self, volume: &str, helper: &str) -> Result<()> {
        self.execute("DELETE FROM marks WHERE volume = ?1 AND helper = ?2", params![volume, helper])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Definition, Key};

    fn helper(body: Value, version: Option<u64>) -> Helper {
        let key = Key { project: "shop".to_owned(), task: "init".to_owned() };
        let definition = Definition::parse(&json!({"once": "dbdata"})).unwrap();
        Helper {
            task: Task { key, definition, body, ..Task::default() },
            volume: "shop_dbdata".to_owned(),
            version,
            ledger: "shop/init".to_owned(),
            inputs: None,
        }
    }

    #[test]
    fn the_same_helper_has_the_same_digest() {
        let digest = |body: Value| helper(body, None).digest("sha256:1");
        let one =
            digest(json!({"Cmd": ["init"], "Env": ["A=1"], "Labels": {"x": "1"}, "Tty": false, "User": ""}));
        assert_eq!(
            one,
            digest(json!({"Env": ["A=1"], "Cmd": ["init"], "Entrypoint": null, "HostConfig": {}}))
        );
        assert_ne!(one, digest(json!({"Env": ["A=2"], "Cmd": ["init"]})));
        assert_ne!(one, digest(json!({"Env": ["A=1"], "Cmd": ["init", "again"]})));
        assert_ne!(one, helper(json!({"Env": ["A=1"], "Cmd": ["init"]}), None).digest("sha256:2"));
        assert_eq!(
            helper(json!({}), Some(3)).digest("sha256:1"),
            helper(json!({"Cmd": ["x"]}), Some(3)).digest("sha256:2")
        );
    }

    #[test]
    fn mounts_are_replaced() {
        let mut body = json!({"HostConfig": {
            "Binds": ["shop_dbdata:/data:rw", "/shop_dbdata:/x", "shop_dbdata2:/y"],
            "Mounts": [{"Type": "volume", "Source": "shop_dbdata", "Target": "/z"}, {"Type": "bind", "Source": "shop_dbdata"}],
        }});
        assert!(replace(&mut body, "shop_dbdata", "draft"));
        assert_eq!(
            body["HostConfig"]["Binds"],
            json!(["draft:/data:rw", "/shop_dbdata:/x", "shop_dbdata2:/y"])
        );
        assert_eq!(body["HostConfig"]["Mounts"][0]["Source"], "draft");
        assert_eq!(body["HostConfig"]["Mounts"][1]["Source"], "shop_dbdata");
        assert!(!replace(&mut json!({"HostConfig": {}}), "shop_dbdata", "draft"));
    }

    #[test]
    fn migrations_come_in_order() {
        let mark = |version| Mark {
            helper: "shop/init".to_owned(),
            digest: String::new(),
            version: Some(version),
            image: String::new(),
            state: "done".to_owned(),
            at: String::new(),
        };
        let ledger = Ledger { identity: String::new(), atomic: true, marks: vec![mark(1), mark(3)] };
        assert!(in_order(&helper(json!({}), Some(4)), &ledger, false).is_ok());
        assert!(in_order(&helper(json!({}), Some(2)), &ledger, false).is_err());
        assert!(in_order(&helper(json!({}), Some(2)), &ledger, true).is_ok());
        assert!(in_order(&helper(json!({}), None), &ledger, false).is_ok());
    }
}
