//! `system df -v`: the four kinds of what takes space, one by one.

use super::{image, ps};
use crate::render::list::{Listing, Style};
use crate::render::{size, table, time};
use serde_json::{Value, json};

const IMAGES: Listing = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    headers: image::HEADERS,
};
const CONTAINERS: Listing = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    headers: ps::HEADERS,
};
const VOLUMES: Listing =
    Listing { table: "{{.Name}}\t{{.Links}}\t{{.Size}}", headers: &[("Name", "VOLUME NAME")] };
const CACHE: Listing = Listing {
    table: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    headers: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
    ],
};

/// The tables for an answer of `/system/df`.
///
/// # Errors
/// Never: the templates are ours.
pub fn detailed(found: &Value) -> Result<String, String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |time| time.as_secs().cast_signed());
    let list = |name: &str| found[name].as_array().map_or(&[][..], Vec::as_slice);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let style = Style { format: None, quiet: false, key: "ID" };
    let images: Vec<Value> = list("Images")
        .iter()
        .flat_map(|item| {
            let (all, shared) = (number(&item["Size"]), number(&item["SharedSize"]).max(0));
            image::image_rows(item, now, false, false).into_iter().map(move |mut row| {
                row["SharedSize"] = size::human(shared).into();
                row["UniqueSize"] = size::human(all - shared).into();
                row["Containers"] = number(&item["Containers"]).max(0).to_string().into();
                row
            })
        })
        .collect();
    let containers: Vec<Value> = list("Containers")
        .iter()
        .map(|item| {
            let mut row = ps::row(item, now, false, false);
            row["Size"] = size::human(number(&item["SizeRw"])).into();
            row
        })
        .collect();
    let volumes: Vec<Value> = list("Volumes")
        .iter()
        .map(|item| {
            let usage = &item["UsageData"];
            json!({
                "Name": item["Name"], "Links": number(&usage["RefCount"]).to_string(),
                "Size": size::human(number(&usage["Size"]).max(0)),
            })
        })
        .collect();
    let cache: Vec<Value> = list("BuildCache")
        .iter()
        .map(|item| {
            let created =
                item["CreatedAt"].as_str().and_then(time::parse).map_or(now, |(seconds, _)| seconds);
            json!({
                "ID": table::short_id(item["ID"].as_str().unwrap_or_default()), "CacheType": item["Type"],
                "Size": size::human(number(&item["Size"])),
                "CreatedSince": format!("{} ago", time::human_duration(now - created)), "LastUsedSince": "",
                "UsageCount": number(&item["UsageCount"]).to_string(), "Shared": item["Shared"],
            })
        })
        .collect();
    let unshared = list("BuildCache").iter().filter(|item| item["Shared"] != true);
    let cached: i64 = unshared.map(|item| number(&item["Size"])).sum();
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n\n{}",
        IMAGES.render(&images, &style)?,
        CONTAINERS.render(&containers, &style)?,
        VOLUMES.render(&volumes, &style)?,
        size::human(cached),
        CACHE.render(&cache, &style)?,
    ))
}
