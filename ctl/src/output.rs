//! Everything that is printed: data on stdout, talk on stderr.
//!
//! Data is what was asked for and what scripts read. Talk is for the person in front of the terminal; `-q` silences it.
//! Errors always come. A reader that closes stdout early (`| head`) is no error: what follows is dropped.

#[cfg(test)]
use std::sync::{Arc, Mutex};
use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
};

use avalon_protocol::control::ApiError;
use serde::Serialize;

use crate::{
    args::{ColorChoice, GlobalArgs},
    environment::Environment,
    escape::escape,
};

/// Where text goes.
#[derive(Debug, Clone)]
pub(crate) enum Streams {
    /// To the process's stdout and stderr.
    Process,
    /// Nowhere: for a command that runs within another one.
    Nowhere,
    /// To a test.
    #[cfg(test)]
    Captured(Captured),
}

/// What a test gets to see, and what it pretends that stdout is.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured {
    pub(crate) stdout: Arc<Mutex<Vec<u8>>>,
    pub(crate) stderr: Arc<Mutex<Vec<u8>>>,
    pub(crate) is_terminal: bool,
}

#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
}

impl Streams {
    fn write(&self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match (self, stream) {
            (Self::Process, Stream::Stdout) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            (Self::Process, Stream::Stderr) => io::stderr().lock().write_all(bytes),
            (Self::Nowhere, _) => Ok(()),
            #[cfg(test)]
            (Self::Captured(captured), stream) => {
                let target = match stream {
                    Stream::Stdout => &captured.stdout,
                    Stream::Stderr => &captured.stderr,
                };
                target.lock().unwrap().extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Prints help, the version or what is wrong with the command line, as clap words it.
    pub(crate) fn usage(&self, error: &clap::Error) {
        let stream = if error.use_stderr() { Stream::Stderr } else { Stream::Stdout };
        let text = error.render();
        let text = if self.is_terminal(stream) { text.ansi().to_string() } else { text.to_string() };
        self.write(stream, text.as_bytes()).ok();
    }

    fn is_terminal(&self, stream: Stream) -> bool {
        match (self, stream) {
            (Self::Process, Stream::Stdout) => io::stdout().is_terminal(),
            (Self::Process, Stream::Stderr) => io::stderr().is_terminal(),
            (Self::Nowhere, _) => false,
            #[cfg(test)]
            (Self::Captured(captured), _) => captured.is_terminal,
        }
    }
}

/// What is emphasised, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Something is wrong.
    Bad,
    /// Something wants to be looked at.
    Warning,
    /// It went well.
    Good,
    /// Of less interest.
    Dim,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bad => "\u{1b}[1;31m",
            Self::Warning => "\u{1b}[1;33m",
            Self::Good => "\u{1b}[1;32m",
            Self::Dim => "\u{1b}[2m",
        }
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressStyle {
    /// Bars that move.
    Bars,
    /// A line now and then.
    Lines,
    /// JSON lines on stdout.
    Json,
    /// Nothing.
    Silent,
}

/// The only thing that prints.
#[derive(Debug)]
pub(crate) struct Output {
    streams: Streams,
    is_json: bool,
    is_quiet: bool,
    is_verbose: bool,
    wants_progress: bool,
    colored: [bool; 2],
    is_closed: Cell<bool>,
}

impl Output {
    /// Prints as the flags and the environment say.
    pub(crate) fn new(streams: Streams, global: &GlobalArgs, environment: &Environment) -> Self {
        let colored = |stream| match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => environment.var("NO_COLOR").is_none() && streams.is_terminal(stream),
        };
        Self {
            is_json: global.json,
            is_quiet: global.quiet,
            is_verbose: global.verbose > 0,
            wants_progress: !global.no_progress,
            colored: [colored(Stream::Stdout), colored(Stream::Stderr)],
            is_closed: Cell::new(false),
            streams,
        }
    }

    /// Prints nothing.
    pub(crate) fn nowhere() -> Self {
        Self {
            streams: Streams::Nowhere,
            is_json: false,
            is_quiet: true,
            is_verbose: false,
            wants_progress: false,
            colored: [false; 2],
            is_closed: Cell::new(false),
        }
    }

    /// Says whether answers are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Says whether a person reads stdout.
    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.streams.is_terminal(Stream::Stdout)
    }

    /// Says whether somebody can be asked, at the terminal of the process.
    pub(crate) fn may_ask(&self) -> bool {
        matches!(self.streams, Streams::Process) && io::stdin().is_terminal()
    }

    /// Asks the person at the terminal, and returns the line that comes.
    pub(crate) fn ask(&self, question: &str) -> Option<String> {
        self.streams.write(Stream::Stderr, escape(question).as_bytes()).ok()?;
        let mut line = String::new();
        io::stdin().read_line(&mut line).ok()?;
        Some(line.trim().to_lowercase())
    }

    /// Says whether nobody reads stdout any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Says how progress is shown.
    pub(crate) fn progress_style(&self) -> ProgressStyle {
        match (self.is_json, self.is_quiet, self.wants_progress) {
            (true, ..) => ProgressStyle::Json,
            (_, true, _) => ProgressStyle::Silent,
            (_, _, true) if self.streams.is_terminal(Stream::Stderr) => ProgressStyle::Bars,
            (_, _, true) => ProgressStyle::Lines,
            (_, _, false) => ProgressStyle::Silent,
        }
    }

    /// Prints a line of data. The caller escapes names in it.
    pub(crate) fn data(&self, line: &str) {
        self.bytes(format!("{line}\n").as_bytes());
    }

    /// Prints data as it is.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        if !self.is_closed.get() && self.streams.write(Stream::Stdout, bytes).is_err() {
            self.is_closed.set(true);
        }
    }

    /// Prints one JSON value as a line of data.
    pub(crate) fn json(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(line) => self.data(&line),
            Err(error) => self.talk(&format!("could not write JSON: {error}")),
        }
    }

    /// Prints a line for the person at the terminal. The caller escapes names in it.
    pub(crate) fn talk(&self, line: &str) {
        if !self.is_quiet && !self.is_json {
            self.stderr(line);
        }
    }

    /// Prints a line that only `-v` shows, with `--json` too.
    pub(crate) fn detail(&self, line: &str) {
        if self.is_verbose {
            self.stderr(line);
        }
    }

    /// Prints an error: what failed and why, then what to do next.
    pub(crate) fn error(&self, error: &ApiError) {
        if self.is_json {
            match serde_json::to_string(error) {
                Ok(line) => self.stderr(&line),
                Err(_) => self.stderr(&error.message),
            }
            return;
        }
        let title = format!("error[{}]:", error.code);
        self.stderr(&format!(
            "{} {}",
            self.paint(Stream::Stderr, Style::Bad, &title),
            escape(&error.message)
        ));
        for line in error.hint.iter().flat_map(|hint| hint.lines()) {
            self.stderr(&format!("  {} {}", self.paint(Stream::Stderr, Style::Dim, "hint:"), escape(line)));
        }
    }

    /// Emphasises a part of a line of data.
    pub(crate) fn emphasised(&self, style: Style, text: &str) -> String {
        self.paint(Stream::Stdout, style, text)
    }

    fn paint(&self, stream: Stream, style: Style, text: &str) -> String {
        let [stdout, stderr] = self.colored;
        let colored = match stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        if colored { format!("{}{text}\u{1b}[0m", style.code()) } else { text.to_owned() }
    }

    /// Nobody reads what cannot be written to stderr.
    fn stderr(&self, line: &str) {
        self.streams.write(Stream::Stderr, format!("{line}\n").as_bytes()).ok();
    }
}
