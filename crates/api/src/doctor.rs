//! `POST /cauldron/v1/doctor?fix=&verify=`: examines the engine's state, and mends it where asked.

use axum::extract::State;
use axum::{Json, Router, routing::post};
use engine::doctor::Examine;
use serde_json::{Value, json};

use crate::input::Params;
use crate::{Failure, Shared, call};

pub(crate) fn routes(router: Router<Shared>) -> Router<Shared> {
    router.route("/cauldron/v1/doctor", post(doctor))
}

async fn doctor(State(engine): State<Shared>, params: Params) -> Result<Json<Value>, Failure> {
    let examine = Examine { fix: params.flag("fix"), verify: params.flag("verify") };
    let report = call(&engine, move |engine| engine.doctor(examine)).await?;
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|found| {
            json!({
                "Kind": found.kind,
                "Object": found.object,
                "Problem": found.problem,
                "Remedy": found.remedy,
                "State": found.state.as_str(),
                "Error": found.error,
            })
        })
        .collect();
    let verified = report.verified.map(|(blobs, bytes)| json!({ "Blobs": blobs, "Bytes": bytes }));
    Ok(Json(json!({ "Findings": findings, "Skipped": report.skipped, "Verified": verified })))
}
