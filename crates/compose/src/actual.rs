//! What is there of a project: its containers, as the engine lists them.

use crate::error::Result;
use crate::labels;
use client::{Client, query};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A container of a project.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: String,
    /// Its number in the service.
    pub number: u32,
    /// Whether `run` made it.
    pub oneoff: bool,
    /// What it was made from.
    pub hash: String,
    /// The id of its image.
    pub image_id: String,
    /// `running`, `exited`, `created`, `paused`, `restarting`, `dead`.
    pub state: String,
    /// Names of its networks.
    pub networks: Vec<String>,
    /// Names of its volumes by target.
    pub volumes: BTreeMap<String, String>,
    /// As the engine lists it.
    pub listed: Value,
}

impl Container {
    /// Reads what the engine lists.
    pub fn read(listed: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let label = |key: &str| text(&listed["Labels"][key]);
        let names = listed["Names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        // A link's alias is `/other/alias`.
        let own = names.map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
        let networks = listed["NetworkSettings"]["Networks"].as_object();
        let mounts = listed["Mounts"].as_array().into_iter().flatten();
        let volumes = mounts.filter(|mount| mount["Type"] == "volume");
        Self {
            id: text(&listed["Id"]),
            name: own.unwrap_or_default().to_owned(),
            service: label(labels::SERVICE),
            number: label(labels::NUMBER).parse().unwrap_or(1),
            oneoff: label(labels::ONEOFF) == "True",
            hash: label(labels::HASH),
            image_id: text(&listed["ImageID"]),
            state: text(&listed["State"]),
            networks: networks.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
            volumes: volumes.map(|mount| (text(&mount["Destination"]), text(&mount["Name"]))).collect(),
            listed: listed.clone(),
        }
    }

    /// Whether it has processes.
    pub fn runs(&self) -> bool {
        ["running", "restarting", "paused"].contains(&self.state.as_str())
    }
}

/// Every container of a project, by service and number.
///
/// # Errors
/// The engine does not say.
pub async fn containers(client: &Client, project: &str) -> Result<Vec<Container>> {
    let filters = json!({"label": [format!("{}={project}", labels::PROJECT)]}).to_string();
    let found =
        client.get(&query("/containers/json", [("all", "1".to_owned()), ("filters", filters)])).await?;
    let mut out: Vec<Container> = found.as_array().into_iter().flatten().map(Container::read).collect();
    out.sort_by(|a, b| {
        (&a.service, a.oneoff, a.number, &a.name).cmp(&(&b.service, b.oneoff, b.number, &b.name))
    });
    Ok(out)
}

/// Every network of the engine, as it lists them.
///
/// # Errors
/// The engine does not say.
pub async fn networks(client: &Client) -> Result<Vec<Value>> {
    Ok(client.get("/networks").await?.as_array().cloned().unwrap_or_default())
}

/// Every volume of the engine, as it lists them.
///
/// # Errors
/// The engine does not say.
pub async fn volumes(client: &Client) -> Result<Vec<Value>> {
    Ok(client.get("/volumes").await?["Volumes"].as_array().cloned().unwrap_or_default())
}
