//! How a pull shows that it moves: bars on a terminal, a line now and then elsewhere, JSON lines for scripts.

use std::{collections::HashMap, time::Duration};

use avalon_protocol::control::{JobState, JobStatus};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    escape::escape,
    measure::{duration, percent, rate, size},
    output::{Output, ProgressStyle, Style},
};

/// How many bars there are at most; more would not fit a screen, and the daemon runs few jobs at a time.
const MAX_BARS: usize = 8;

/// How often a line is printed without a terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// How often a JSON line is printed.
const JSON_PERIOD: Duration = Duration::from_millis(500);

/// Shows the progress of a pull.
pub(super) struct Display<'a> {
    output: &'a Output,
    style: ProgressStyle,
    bars: MultiProgress,
    by_job: HashMap<String, ProgressBar>,
    last: Option<Instant>,
}

#[derive(Serialize)]
struct Progress<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    versions_done: usize,
    versions_total: usize,
    bytes_present: u64,
    bytes_total: u64,
    bytes_per_second: f64,
    eta_seconds: Option<f64>,
    running: Vec<Running<'a>>,
}

#[derive(Serialize)]
struct Running<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    job: &'a str,
    state: JobState,
    reason: Option<&'a str>,
    files_present: u64,
    files_total: u64,
    bytes_present: u64,
    bytes_total: u64,
}

impl<'a> Display<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let style = output.progress_style();
        let target = match style {
            ProgressStyle::Bars => ProgressDrawTarget::stderr(),
            _ => ProgressDrawTarget::hidden(),
        };
        let bars = MultiProgress::with_draw_target(target);
        Self { output, style, bars, by_job: HashMap::new(), last: None }
    }

    /// Shows how the jobs stand, not more often than is useful.
    pub(super) fn update(&mut self, jobs: &[&JobStatus]) {
        match self.style {
            ProgressStyle::Bars => self.draw(jobs),
            ProgressStyle::Lines => {
                if self.is_time(LINE_PERIOD) {
                    self.line(jobs);
                }
            }
            ProgressStyle::Json => {
                if self.is_time(JSON_PERIOD) {
                    self.output.json(&progress(jobs));
                }
            }
            ProgressStyle::Silent => {}
        }
    }

    /// Shows that a job has ended; what failed is told as an error later.
    pub(super) fn ended(&mut self, job: &JobStatus) {
        if let Some(bar) = self.by_job.remove(&job.id) {
            bar.finish_and_clear();
        }
        if job.state == JobState::Done && !self.output.is_json() {
            let line = ready(self.output, job);
            self.bars.suspend(|| self.output.data(&line));
        }
    }

    /// Takes the bars away.
    pub(super) fn end(&mut self) {
        self.by_job.drain().for_each(|(_, bar)| bar.finish_and_clear());
    }

    fn is_time(&mut self, period: Duration) -> bool {
        let now = Instant::now();
        let is_time = self.last.is_none_or(|last| now.duration_since(last) >= period);
        if is_time {
            self.last = Some(now);
        }
        is_time
    }

    fn draw(&mut self, jobs: &[&JobStatus]) {
        for job in jobs.iter().filter(|job| !job.state.is_final() && job.state != JobState::Queued) {
            if self.by_job.len() >= MAX_BARS && !self.by_job.contains_key(&job.id) {
                continue;
            }
            let bar = self.by_job.entry(job.id.clone()).or_insert_with(|| {
                let bar = self.bars.add(ProgressBar::new(job.bytes_total));
                bar.set_style(bar_style());
                bar.set_prefix(escape(&job.reference).into_owned());
                bar
            });
            bar.set_length(job.bytes_total);
            bar.set_position(job.bytes_present);
            bar.set_message(moving(job));
        }
    }

    fn line(&self, jobs: &[&JobStatus]) {
        let going: Vec<&JobStatus> = jobs.iter().copied().filter(|job| !job.state.is_final()).collect();
        let Some(first) = going.first() else { return };
        let total = progress(jobs);
        let part = percent(total.bytes_present, total.bytes_total);
        let bytes = format!("{}/{}", size(total.bytes_present), size(total.bytes_total));
        let what = match jobs.len() {
            1 => escape(&first.reference).into_owned(),
            versions => format!("{} of {versions} versions", total.versions_done),
        };
        let eta = total.eta_seconds.map(|eta| format!("  eta {}", duration(eta))).unwrap_or_default();
        let reason = match (&first.reason, jobs.len()) {
            (Some(reason), 1) => format!("  {}", escape(reason)),
            _ => String::new(),
        };
        let rate = rate(total.bytes_per_second);
        self.output.talk(&format!("{what}  {part}%  {bytes}  {rate}{eta}{reason}"));
    }
}

fn bar_style() -> BarStyle {
    let template =
        "  {prefix:28!} {bar:20.green} {percent:>3}%  {binary_bytes}/{binary_total_bytes}  {wide_msg}";
    BarStyle::with_template(template).unwrap_or_else(|_| BarStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏·")
}

fn moving(job: &JobStatus) -> String {
    let reason = job.reason.as_deref().map(escape).unwrap_or_default();
    match job.state {
        JobState::Placing => "putting it into the project".to_owned(),
        JobState::Waiting => format!("waits: {reason}"),
        JobState::Paused => format!("{reason}; go on: avalonctl resume"),
        _ => {
            let eta = job.eta_seconds.map(|eta| format!("  eta {}", duration(eta))).unwrap_or_default();
            format!("{}{eta}", rate(job.bytes_per_second))
        }
    }
}

fn progress<'a>(jobs: &[&'a JobStatus]) -> Progress<'a> {
    let going = || jobs.iter().copied().filter(|job| !job.state.is_final());
    let bytes_per_second: f64 = going().map(|job| job.bytes_per_second).sum();
    let bytes_present = jobs.iter().map(|job| job.bytes_present).sum();
    let bytes_total = jobs.iter().map(|job| job.bytes_total).sum::<u64>();
    let missing = bytes_total.saturating_sub(bytes_present);
    Progress {
        kind: "progress",
        versions_done: jobs.iter().filter(|job| job.state == JobState::Done).count(),
        versions_total: jobs.len(),
        bytes_present,
        bytes_total,
        bytes_per_second,
        eta_seconds: (bytes_per_second >= 1.0).then(|| missing as f64 / bytes_per_second),
        running: going().filter(|job| job.state != JobState::Queued).map(running).collect(),
    }
}

fn running(job: &JobStatus) -> Running<'_> {
    Running {
        reference: &job.reference,
        job: &job.id,
        state: job.state,
        reason: job.reason.as_deref(),
        files_present: job.files_present,
        files_total: job.files_total,
        bytes_present: job.bytes_present,
        bytes_total: job.bytes_total,
    }
}

/// Says that a version is here: in words on a terminal, as reference and path elsewhere.
fn ready(output: &Output, job: &JobStatus) -> String {
    let (reference, path) = (escape(&job.reference), escape(job.path.as_deref().unwrap_or_default()));
    if !output.stdout_is_terminal() {
        return format!("{reference}\t{path}");
    }
    let mark = output.emphasised(Style::Good, "✔");
    if job.bytes_received == 0 && job.seconds == 0.0 {
        return format!("{mark} {reference} is here already  →  {path}");
    }
    let (transferred, saved) = (size(job.bytes_received), saved(job));
    let seconds = duration(job.seconds);
    format!("{mark} {reference} ready in {seconds}  →  {path}  (verified, {transferred} transferred{saved})")
}

/// Says what did not have to travel as it is.
fn saved(job: &JobStatus) -> String {
    let parts = [
        (job.bytes_local, "found here"),
        (job.bytes_delta, "as differences"),
        (job.bytes_compressed, "compressed"),
    ];
    let parts = parts.into_iter().filter(|(bytes, _)| *bytes > 0);
    parts.map(|(bytes, how)| format!(", {} {how}", size(bytes))).collect()
}
