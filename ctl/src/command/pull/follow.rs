//! Watches jobs until they end: by the event stream, and by asking for what the stream was silent about.

use std::time::Duration;

use avalon_protocol::control::{
    ApiError, ErrorCode, Event, EventKind, JobKind, JobState, JobStatus, PlanState, PullItem, PullReply,
    PullRequest, route,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{plan, progress::Display};
use crate::{
    client::{ClientError, EventStream, percent_encode},
    command::wait::at,
    context::Context,
    failure::Failure,
};

/// How often to ask for jobs that no event told about.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// How long a daemon may be gone, as for a restart, before watching makes no sense.
const RESTART_LIMIT: Duration = Duration::from_secs(60);

/// Why watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Every job has ended.
    Finished,
    /// The time is over.
    TimedOut,
    /// The user wants to go.
    Interrupted,
}

/// One version that is waited for.
#[derive(Debug)]
pub(super) struct Followed {
    /// What was planned.
    pub(super) item: PullItem,
    /// How its job stands; one that ended at once where there is nothing to do.
    pub(super) status: JobStatus,
    /// Whether the stream told about it since it was last asked for.
    is_fresh: bool,
    is_shown: bool,
}

impl Followed {
    pub(super) fn new(item: PullItem) -> Self {
        Self { status: first_status(&item), item, is_fresh: false, is_shown: false }
    }

    /// Returns the error of a job that ended without the version.
    pub(super) fn failure(&self) -> Option<(PullItem, ApiError)> {
        let reference = &self.item.reference;
        let error = match self.status.state {
            JobState::Cancelled => {
                // A retirement and a policy end a job as well; the daemon says which stands now.
                ApiError::new(ErrorCode::Internal, format!("fetching {reference} was cancelled"))
                    .with_hint(format!("see whether it may come: avalonctl why {reference}"))
            }
            JobState::Failed => {
                let reason = self.status.reason.as_deref().unwrap_or("the daemon did not say why");
                let code = self.status.error.unwrap_or(ErrorCode::Internal);
                ApiError::new(code, format!("{reference} was not fetched: {reason}"))
                    .with_hint(next_step(code, reference))
            }
            _ => return None,
        };
        Some((self.item.clone(), error))
    }
}

fn next_step(code: ErrorCode, reference: &str) -> String {
    match code {
        ErrorCode::DiskFull => {
            format!("make room and go on where it stopped: avalonctl pull {reference}")
        }
        ErrorCode::NoSource | ErrorCode::Conflict => format!("see who has it: avalonctl where {reference}"),
        _ => "see what happened: avalonctl log".to_owned(),
    }
}

/// Watches the jobs of a pull.
pub(super) struct Follower<'a> {
    context: &'a Context<'a>,
    events: Option<EventStream>,
    last_event: Option<u64>,
    followed: Vec<Followed>,
    display: Display<'a>,
    gone_since: Option<Instant>,
}

impl<'a> Follower<'a> {
    /// Watches versions; `events` was opened before the jobs were made.
    pub(super) fn new(context: &'a Context<'a>, events: EventStream, followed: Vec<Followed>) -> Self {
        let display = Display::new(context.output);
        Self { context, events: Some(events), last_event: None, followed, display, gone_since: None }
    }

    /// Returns the versions as they stand.
    pub(super) fn into_followed(self) -> Vec<Followed> {
        self.followed
    }

    /// Watches until all have ended, the time is over or the user interrupts.
    ///
    /// A daemon that restarts meanwhile is waited for, and asked again for what it has forgotten.
    pub(super) async fn follow(&mut self, deadline: Option<Instant>) -> Result<Ending, Failure> {
        let mut ticks = interval(ASK_AGAIN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ending = loop {
            self.show();
            if self.followed.iter().all(|followed| followed.status.state.is_final()) {
                break Ending::Finished;
            }
            tokio::select! {
                event = next_event(&mut self.events) => match event {
                    Some(event) => self.apply(event),
                    None => self.events = None,
                },
                _ = ticks.tick() => self.ask().await?,
                () = at(deadline) => break Ending::TimedOut,
                () = self.context.interrupt.wait() => break Ending::Interrupted,
            }
        };
        self.display.end();
        Ok(ending)
    }

    fn show(&mut self) {
        for followed in self.followed.iter_mut().filter(|followed| !followed.is_shown) {
            if followed.status.state.is_final() {
                followed.is_shown = true;
                self.display.ended(&followed.status);
            }
        }
        let statuses: Vec<&JobStatus> = self.followed.iter().map(|followed| &followed.status).collect();
        self.display.update(&statuses);
    }

    fn apply(&mut self, event: Event) {
        if self.last_event.is_some_and(|last| event.id > last + 1) {
            // Events were lost: the next tick asks for every job.
            self.followed.iter_mut().for_each(|followed| followed.is_fresh = false);
        }
        self.last_event = Some(event.id);
        let EventKind::Job { job } = event.kind else { return };
        if let Some(followed) = self.followed.iter_mut().find(|followed| followed.status.id == job.id) {
            followed.take(job);
            followed.is_fresh = true;
        }
    }

    /// Asks for each job that the stream was silent about.
    async fn ask(&mut self) -> Result<(), Failure> {
        if self.events.is_none() {
            self.events = self.context.client.events(None).await.ok();
            self.last_event = None;
            self.followed.iter_mut().for_each(|followed| followed.is_fresh = false);
        }
        for followed in &mut self.followed {
            if followed.status.state.is_final() || std::mem::take(&mut followed.is_fresh) {
                continue;
            }
            match ask_one(self.context, followed).await {
                Ok(()) => self.gone_since = None,
                Err(error) if error.is_unreachable() => {
                    if self.gone_since.is_none() {
                        self.context.output.talk("the daemon is gone; waiting for it to come back");
                    }
                    if self.gone_since.get_or_insert_with(Instant::now).elapsed() > RESTART_LIMIT {
                        self.display.end();
                        return Err(error.into());
                    }
                    return Ok(());
                }
                Err(error) => {
                    self.display.end();
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }
}

impl Followed {
    /// Takes news, unless they are older than what is known: an ended job does not run again.
    fn take(&mut self, status: JobStatus) {
        if !self.status.state.is_final() {
            self.status = status;
        }
    }
}

async fn ask_one(context: &Context<'_>, followed: &mut Followed) -> Result<(), ClientError> {
    let target = format!("{}/{}", route::JOBS, percent_encode(&followed.status.id));
    match context.client.get(&target, &[]).await {
        Ok(status) => followed.take(status),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => ask_anew(context, followed).await?,
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Asks again for a version whose job the daemon has forgotten.
async fn ask_anew(context: &Context<'_>, followed: &mut Followed) -> Result<(), ClientError> {
    let refs = vec![followed.item.reference.clone()];
    let request = PullRequest { refs, project: None, dry_run: false, with_inputs: false, frames: None };
    let reply: PullReply = context.client.post(route::PULL, &request).await?;
    if let Some(item) = reply.versions.into_iter().next() {
        followed.status = first_status(&item);
        let refused = match item.state {
            PlanState::Conflict => Some(plan::conflict(&item)),
            PlanState::Forbidden => Some(plan::forbidden(&item)),
            PlanState::Retired => Some(plan::retired(&item)),
            PlanState::Here | PlanState::Fetch | PlanState::NoSource => None,
        };
        if let Some(error) = refused {
            followed.status.state = JobState::Failed;
            followed.status.error = Some(error.code);
            followed.status.reason = Some(error.message);
        }
    }
    Ok(())
}

/// Returns how a job stands before anything was heard of it.
fn first_status(item: &PullItem) -> JobStatus {
    let (state, bytes_present) = match item.state {
        PlanState::Here => (JobState::Done, item.bytes),
        PlanState::NoSource => (JobState::Waiting, item.bytes_here),
        PlanState::Fetch | PlanState::Conflict | PlanState::Forbidden | PlanState::Retired => {
            (JobState::Queued, item.bytes_here)
        }
    };
    JobStatus {
        id: item.job.clone().unwrap_or_default(),
        kind: JobKind::Pull,
        reference: item.reference.clone(),
        manifest: item.manifest.clone(),
        state,
        reason: None,
        error: None,
        files_total: item.files,
        files_present: if state == JobState::Done { item.files } else { 0 },
        bytes_total: item.bytes,
        bytes_present,
        bytes_received: 0,
        bytes_local: 0,
        bytes_delta: 0,
        bytes_compressed: 0,
        bytes_raw: 0,
        bytes_per_second: 0.0,
        eta_seconds: None,
        seconds: 0.0,
        sources: Vec::new(),
        path: item.path.clone(),
        class: None,
        prio: None,
        frames: None,
        position: None,
    }
}

/// Returns the next event, or `None` when the stream has ended; never without a stream.
async fn next_event(events: &mut Option<EventStream>) -> Option<Event> {
    match events {
        Some(stream) => stream.next_event().await.ok().flatten(),
        None => std::future::pending().await,
    }
}
