//! One file a verb or a small family of verbs: flags → client calls → rendering.

mod build;
pub mod compose;
mod container;
mod context;
mod cp;
mod credentials;
mod df;
mod doctor;
mod exec;
mod filters;
mod image;
mod inspect;
mod login;
mod logs;
mod manifest;
mod network;
mod ps;
mod pull;
mod run;
mod serve;
mod stats;
mod system;
mod task;
mod tls;
mod volume;

use crate::cli::Verb;

/// Every verb, in the order of the help.
pub const ALL: &[&[Verb]] = &[
    run::VERBS,
    exec::VERBS,
    ps::VERBS,
    container::VERBS,
    logs::VERBS,
    cp::VERBS,
    stats::VERBS,
    image::VERBS,
    build::VERBS,
    pull::VERBS,
    manifest::VERBS,
    inspect::VERBS,
    network::VERBS,
    volume::VERBS,
    system::VERBS,
    doctor::VERBS,
    login::VERBS,
    context::VERBS,
    serve::VERBS,
    task::VERBS,
    tls::VERBS,
    task::HELPER_VERBS,
    compose::VERBS,
    compose::SHORT,
];
