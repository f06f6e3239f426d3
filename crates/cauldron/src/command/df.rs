//! `system df -v`: the four kinds of what takes space, one by one; `builder du`: the build cache alone.

use super::{image, ps};
use crate::args::Given;
use crate::fail::{Failure, Outcome};
use crate::render::list::{Listing, Style};
use crate::render::template::Template;
use crate::render::{size, table, time};
use crate::session::Session;
use clap::ArgMatches;
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
            let mut row = ps::row(&ps::Listed::of(item)?, now, false, false);
            row["Size"] = size::human(number(&item["SizeRw"])).into();
            Ok(row)
        })
        .collect::<Result<_, String>>()?;
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
            let since = |key: &str| {
                let at = item[key].as_str().and_then(time::parse).map_or(now, |(seconds, _)| seconds);
                format!("{} ago", time::human_duration(now - at))
            };
            json!({
                "ID": table::short_id(item["ID"].as_str().unwrap_or_default()), "CacheType": item["Type"],
                "Size": size::human(number(&item["Size"])),
                "CreatedSince": since("CreatedAt"), "LastUsedSince": since("LastUsedAt"),
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
/// `builder du`: every step and mount of the build cache, what was not used for longest first.
pub async fn build_cache(session: Session, given: ArgMatches) -> Outcome {
    let answer = session.client()?.get("/system/df?type=build-cache").await?;
    let wanted = given.texts("filter");
    let mut kept: Vec<&Value> = Vec::new();
    for item in answer["BuildCache"].as_array().into_iter().flatten() {
        let mut matches = true;
        for filter in &wanted {
            let (key, value) = filter.split_once('=').unwrap_or((filter, "true"));
            let text = |name: &str| item[name].as_str().unwrap_or_default();
            matches &= match key {
                "id" => text("ID").starts_with(value),
                "type" => text("Type") == value,
                "description" => text("Description").contains(value),
                "shared" => item["Shared"] == (value == "true"),
                "inuse" => item["InUse"] == (value == "true"),
                _ => return Err(Failure::new(format!("invalid filter '{key}'")).code(1)),
            };
        }
        if matches {
            kept.push(item);
        }
    }
    match given.text("format").filter(|format| !format.is_empty()) {
        Some("json") => {
            for item in kept {
                session.line(&item.to_string())?;
            }
            return Ok(0);
        }
        Some(template) => {
            let template = Template::parse(template)?;
            for item in kept {
                session.line(&template.render(item)?)?;
            }
            return Ok(0);
        }
        None => {}
    }
    let now = session.now().0;
    let bytes = |item: &Value| item["Size"].as_i64().unwrap_or(0);
    let mut out = String::new();
    if !given.on("verbose") {
        out.push_str("ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n");
    }
    for item in &kept {
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        let reclaimable = item["InUse"] != true;
        let used = time::parse(text("LastUsedAt")).map_or(now, |(seconds, _)| seconds);
        let used = format!("{} ago", time::human_duration(now - used));
        let size = size::human(bytes(item));
        if given.on("verbose") {
            out.push_str(&format!(
                "ID:\t{}\nCreated at:\t{}\nMutable:\t{}\nReclaimable:\t{reclaimable}\nShared:\t{}\nSize:\t{size}\nDescription:\t{}\nLast used:\t{used}\nType:\t{}\n\n",
                text("ID"),
                text("CreatedAt"),
                text("Type") != "regular",
                item["Shared"],
                text("Description"),
                text("Type"),
            ));
        } else {
            let id = table::short_id(text("ID"));
            out.push_str(&format!("{id}\t{reclaimable}\t{size}\t{used}\n"));
        }
    }
    let sum = |shared: bool| -> i64 {
        let all = kept.iter().filter(|item| shared || item["Shared"] != true);
        all.map(|item| bytes(item)).sum()
    };
    let (shared, own) = (sum(true) - sum(false), sum(false));
    if shared > 0 {
        out.push_str(&format!("Shared:\t{}\nPrivate:\t{}\n", size::human(shared), size::human(own)));
    }
    out.push_str(&format!("Reclaimable:\t{}\nTotal:\t{}\n", size::human(own), size::human(own + shared)));
    session.out(&table::align(&out))?;
    Ok(0)
}
