//! How the demo tells what happens: a line per step for people, JSON lines for scripts.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde::Serialize;
use tokio::time::Instant;

use super::story::Outcome;
use crate::{
    escape::escape,
    measure::{count, duration, size},
    output::{Output, ProgressStyle, Style},
};

/// How often a line of progress is printed without a terminal.
const LINE_PERIOD: Duration = Duration::from_secs(5);

/// How often a JSON line of progress is printed.
const JSON_PERIOD: Duration = Duration::from_millis(500);

/// Tells the story.
pub(super) struct Teller<'a> {
    output: &'a Output,
    started: Instant,
    spinner: ProgressBar,
    waiting_for: RefCell<String>,
    last: Cell<Option<Instant>>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
    seconds: f64,
}

#[derive(Serialize)]
struct Summary<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    schema: &'static str,
    versions: u64,
    files: u64,
    bytes: u64,
    mismatches: u64,
    missing: u64,
    extra: u64,
    /// How often a version was seen before all of it was there.
    half_visible: u64,
    /// What montreal had when it was killed.
    killed_at: Option<&'a str>,
    seconds: f64,
    ok: bool,
}

impl<'a> Teller<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let spinner = ProgressBar::new_spinner();
        spinner.set_draw_target(match output.progress_style() {
            ProgressStyle::Bars => ProgressDrawTarget::stderr(),
            _ => ProgressDrawTarget::hidden(),
        });
        if let Ok(style) = BarStyle::with_template("  {spinner} {wide_msg}") {
            spinner.set_style(style);
        }
        let (waiting_for, last) = (RefCell::default(), Cell::new(None));
        Self { output, started: Instant::now(), spinner, waiting_for, last }
    }

    /// Says what is waited for now, as `for london to notice 3 versions`.
    pub(super) fn wait(&self, what: &str) {
        what.clone_into(&mut self.waiting_for.borrow_mut());
        self.spinner.set_message(format!("waiting {}", escape(what)));
        self.spinner.tick();
        let period = match self.output.progress_style() {
            ProgressStyle::Json => JSON_PERIOD,
            ProgressStyle::Lines => LINE_PERIOD,
            ProgressStyle::Bars | ProgressStyle::Silent => return,
        };
        let now = Instant::now();
        // The first line comes after a while: most waits are over before.
        if now.duration_since(self.last.get().unwrap_or(self.started)) < period {
            return;
        }
        self.last.set(Some(now));
        let message = format!("waiting {what}");
        if self.output.is_json() {
            self.json("progress", &message);
        } else {
            self.output.talk(&format!("  {}", escape(&message)));
        }
    }

    /// Returns what is waited for.
    pub(super) fn waiting_for(&self) -> String {
        self.waiting_for.borrow().clone()
    }

    /// Tells that something is done.
    pub(super) fn step(&self, text: &str) {
        self.last.set(Some(Instant::now()));
        if self.output.is_json() {
            self.json("step", text);
            return;
        }
        let time = format!("{:>6}", duration(self.started.elapsed().as_secs_f64()));
        let (mark, time) =
            (self.output.emphasised(Style::Good, "✔"), self.output.emphasised(Style::Dim, &time));
        self.spinner.suspend(|| self.output.data(&format!("{time}  {mark} {}", escape(text))));
    }

    /// Tells something that is no step of the story.
    pub(super) fn note(&self, text: &str) {
        self.output.talk(&escape(text));
    }

    /// Takes the spinner away, until the next wait.
    pub(super) fn end(&self) {
        self.spinner.finish_and_clear();
    }

    /// Tells how it ended.
    pub(super) fn summary(&self, outcome: &Outcome, took: Duration, ok: bool) {
        let seconds = took.as_secs_f64();
        if self.output.is_json() {
            self.output.json(&Summary {
                kind: "summary",
                schema: "avalonctl.demo/1",
                versions: outcome.versions,
                files: outcome.files,
                bytes: outcome.bytes,
                mismatches: outcome.differ,
                missing: outcome.missing,
                extra: outcome.extra,
                half_visible: outcome.half_visible,
                killed_at: outcome.killed_at.as_deref(),
                seconds,
                ok,
            });
        } else if ok {
            let mark = self.output.emphasised(Style::Good, "✔");
            let (versions, files) = (count(outcome.versions, "version"), count(outcome.files, "file"));
            let what = format!("{versions}, {files}, {}", size(outcome.bytes));
            self.output.data(&format!("{mark} all right: {what}, 0 differ, in {}", duration(seconds)));
        }
    }

    fn json(&self, kind: &'static str, message: &str) {
        self.output.json(&Line { kind, message, seconds: self.started.elapsed().as_secs_f64() });
    }
}
