//! What a pull is going to do, and why it cannot do some of it.

use avalon_protocol::control::{ApiError, ErrorCode, MissingInput, PlanState, PullItem, PullReply};
use serde::Serialize;

use super::{PullArgs, inputs};
use crate::{
    escape::escape,
    measure::{count, size},
    output::Output,
    table::{self, Cell},
};

#[derive(Serialize)]
struct DryRun<'a> {
    schema: &'static str,
    versions: &'a [PullItem],
    #[serde(flatten)]
    inputs: Option<WithInputs<'a>>,
}

/// What is said besides when inputs were asked for.
#[derive(Serialize)]
struct WithInputs<'a> {
    missing: &'a [MissingInput],
    missing_more: u64,
    disk_free_bytes: Option<u64>,
    recent_bytes_per_second: Option<f64>,
}

/// Shows what would happen.
pub(super) fn show_dry_run(output: &Output, reply: &PullReply, args: &PullArgs) {
    if output.is_json() {
        let inputs = args.with_inputs.then_some(WithInputs {
            missing: &reply.missing,
            missing_more: reply.missing_more,
            disk_free_bytes: reply.disk_free_bytes,
            recent_bytes_per_second: reply.recent_bytes_per_second,
        });
        output.json(&DryRun { schema: "avalonctl.pull-plan/1", versions: &reply.versions, inputs });
        return;
    }
    let row = |item: &PullItem| {
        let missing = item.bytes.saturating_sub(item.bytes_here);
        let state = match item.state {
            PlanState::Here => "here",
            PlanState::Fetch => "fetch",
            PlanState::NoSource => "no source",
            PlanState::Conflict => "conflict",
            PlanState::Forbidden => "forbidden",
            PlanState::Retired => "retired",
        };
        vec![
            Cell::text(&item.reference),
            Cell::text(state),
            Cell::number(item.files, item.files.to_string()),
            Cell::number(item.bytes, size(item.bytes)),
            Cell::number(missing, size(missing)),
            Cell::text(item.sources.join(",")),
        ]
    };
    let rows = reply.versions.iter().map(row).collect();
    table::print(output, &["VERSION", "PLAN", "FILES", "SIZE", "TO FETCH", "FROM"], rows);
    for item in reply.versions.iter().filter(|item| item.state == PlanState::Forbidden) {
        let why = item.reason.as_deref().unwrap_or("the studio's policy forbids it");
        output.talk(&format!("  forbidden: {}: {}", escape(&item.reference), escape(why)));
    }
    if args.with_inputs {
        inputs::talk_plan(output, reply);
        inputs::tell_missing(output, &reply.missing, reply.missing_more);
    }
    let missing = reply.versions.iter().filter(|item| item.state == PlanState::Fetch);
    let bytes = missing.map(|item| item.bytes.saturating_sub(item.bytes_here)).sum();
    output.talk(&format!("{} to fetch; nothing was done", size(bytes)));
}

/// Tells what is going to be done with one version.
pub(super) fn talk(output: &Output, item: &PullItem) {
    let what = format!("{}, {}", count(item.files, "file"), size(item.bytes));
    let reference = escape(&item.reference);
    match item.state {
        PlanState::Here => output.talk(&format!("{reference}  {what}, all here")),
        PlanState::NoSource => {
            let holders = escape(&item.holders.join(", ")).into_owned();
            output.talk(&format!("{reference}  {what}, waits for one of: {holders}"));
        }
        PlanState::Fetch | PlanState::Conflict | PlanState::Forbidden | PlanState::Retired => {
            let here = if item.bytes_here > 0 {
                format!(", {} already here", size(item.bytes_here))
            } else {
                String::new()
            };
            output.talk(&format!("{reference}  {what}{here}"));
            if !item.sources.is_empty() {
                output.talk(&format!("  from {}", escape(&item.sources.join(", "))));
            }
        }
    }
}

/// Says that nobody who has it can be reached.
pub(super) fn no_source(item: &PullItem) -> ApiError {
    let holders = match item.holders.as_slice() {
        [] => "nobody holds it".to_owned(),
        holders => format!("held by {}", holders.join(", ")),
    };
    let missing = size(item.bytes.saturating_sub(item.bytes_here));
    let message = format!("no reachable node holds {} ({holders}; wanted: {missing})", item.reference);
    let hint = match &item.job {
        Some(job) => format!(
            "it is queued as job {job} and starts when a holder is back; wait for it: avalonctl pull {} --timeout 1h; \
             give it up: avalonctl cancel {job}",
            item.reference
        ),
        None => format!("see who has it: avalonctl where {}", item.reference),
    };
    ApiError::new(ErrorCode::NoSource, message).with_hint(hint)
}

/// Says that the policy does not let it come here.
pub(super) fn forbidden(item: &PullItem) -> ApiError {
    let why = item.reason.clone().unwrap_or_else(|| "the studio's policy forbids it".to_owned());
    let hint = "read the rule: avalonctl policy show; whoever keeps the policy can change it";
    ApiError::new(ErrorCode::Denied, format!("{} was not fetched: {why}", item.reference)).with_hint(hint)
}

/// Says that it is out of use.
pub(super) fn retired(item: &PullItem) -> ApiError {
    let why = item.reason.clone().unwrap_or_else(|| "it is retired".to_owned());
    ApiError::new(ErrorCode::Retired, format!("{} was not fetched: {why}", item.reference))
}

/// Says that sites disagree.
pub(super) fn conflict(item: &PullItem) -> ApiError {
    let message = format!("sites published different content as {}; nothing was fetched", item.reference);
    let hint = format!(
        "see who has what: avalonctl conflicts; decide which keeps the number: avalonctl resolve {} --keep SITE",
        item.reference
    );
    ApiError::new(ErrorCode::Conflict, message).with_hint(hint)
}
