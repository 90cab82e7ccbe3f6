//! `pull --with-inputs`: how much all of it is before anything moves, and what is missing in the end.

use avalon_protocol::control::{
    ApiError, ErrorCode, MissingInput, MissingReason, PlanState, PullItem, PullReply,
};

use crate::{
    context::said,
    escape::escape,
    failure::Failure,
    measure::{count, duration, rate, size},
    output::Output,
};

/// How many missing inputs are shown one by one.
const SHOWN: usize = 20;

/// Tells how much there is, how much of it is here, how long the rest takes, and what room there is.
pub(super) fn talk_plan(output: &Output, reply: &PullReply) {
    let items = &reply.versions;
    let files: u64 = items.iter().map(|item| item.files).sum();
    let bytes: u64 = items.iter().map(|item| item.bytes).sum();
    let fetch = bytes_to_fetch(reply);
    let mut said = format!(
        "{} with inputs, {}, {}",
        count(items.len() as u64, "version"),
        count(files, "file"),
        size(bytes)
    );
    if fetch == 0 {
        said.push_str(", all here");
    } else {
        said.push_str(&format!(
            "; {} here already, {} to fetch",
            size(bytes.saturating_sub(fetch)),
            size(fetch)
        ));
        said.push_str(&match reply.recent_bytes_per_second.filter(|rate| *rate > 0.0) {
            #[expect(clippy::cast_precision_loss, reason = "a time for people")]
            Some(now) => format!(", about {} at {}", duration(fetch as f64 / now), rate(now)),
            None => ", time unknown: nothing was fetched lately".to_owned(),
        });
        if let Some(free) = reply.disk_free_bytes {
            said.push_str(&format!("; {} free on the disk", size(free)));
        }
    }
    output.talk(&said);
}

/// Refuses what cannot find room; nothing was asked for then.
pub(super) fn check_room(reply: &PullReply) -> Result<(), Failure> {
    let fetch = bytes_to_fetch(reply);
    match reply.disk_free_bytes {
        Some(free) if fetch > free => Err(said(
            ErrorCode::DiskFull,
            format!(
                "{} are to be fetched, and {} are free on the disk; nothing was fetched",
                size(fetch),
                size(free)
            ),
            "make room, or fetch single versions; list them with their sizes: avalonctl pull -n --with-inputs",
        )),
        _ => Ok(()),
    }
}

fn bytes_to_fetch(reply: &PullReply) -> u64 {
    let comes = |item: &&PullItem| matches!(item.state, PlanState::Fetch | PlanState::NoSource);
    let coming = reply.versions.iter().filter(comes);
    coming.map(|item| item.bytes.saturating_sub(item.bytes_here)).sum()
}

/// Tells one by one what cannot be fetched, and returns the error of it.
pub(super) fn tell_missing(output: &Output, missing: &[MissingInput], more: u64) -> Option<ApiError> {
    let all = missing.len() as u64 + more;
    if all == 0 {
        return None;
    }
    missing
        .iter()
        .take(SHOWN)
        .for_each(|input| output.talk(&format!("  missing: {}", escape(&words(input)))));
    let left = all.saturating_sub(SHOWN as u64);
    if left > 0 {
        output.talk(&format!("  and {left} more"));
    }
    let first = missing.first().map(words).unwrap_or_default();
    let message = match all {
        1 => format!("1 input cannot be fetched: {first}"),
        all => format!("{all} inputs cannot be fetched; the first: {first}"),
    };
    let error = ApiError::new(ErrorCode::InputsMissing, message);
    Some(error.with_hint("whoever has them publishes them; list all: avalonctl inputs REF --recursive"))
}

/// Says what is missing, who needs it and why it cannot be had.
pub(crate) fn words(missing: &MissingInput) -> String {
    format!("{} (needed by {}) {}", missing.input, missing.needed_by, reason(missing.why))
}

fn reason(why: MissingReason) -> &'static str {
    match why {
        MissingReason::NotPublished => "is not published",
        MissingReason::Unknown => "is not known here",
        MissingReason::OtherProject => "belongs to a project that this node does not serve",
        MissingReason::NoManifest => "is known, and what it was made from is not yet",
        MissingReason::TooMany => "is beyond what one pull takes",
    }
}
