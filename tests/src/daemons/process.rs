//! A process of a daemon, and its log.

use std::{
    io::{BufRead as _, BufReader, ErrorKind},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;

/// What a process wrote to stderr, line by line.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(stderr: ChildStderr) -> Self {
        let log = Self::default();
        let there = log.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
                let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                bytes.clear();
                there.0.0.lock().unwrap().lines.push(line);
                there.0.1.notify_all();
            }
            there.0.0.lock().unwrap().ended = true;
            there.0.1.notify_all();
        });
        log
    }

    /// Returns all lines so far.
    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }

    /// Returns the lines after so many.
    pub fn after(&self, lines: usize) -> Vec<String> {
        self.0.0.lock().unwrap().lines.get(lines..).unwrap_or_default().to_vec()
    }

    /// Says whether a line with this text came.
    pub fn has(&self, text: &str) -> bool {
        self.0.0.lock().unwrap().lines.iter().any(|line| line.contains(text))
    }

    /// Waits for a line with this text; says no when the process ends without it.
    pub fn wait_for(&self, text: &str) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let mut looked_at = 0;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if lines.lines[looked_at..].iter().any(|line| line.contains(text)) {
                return true;
            }
            looked_at = lines.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                return false;
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits until the process has closed it.
    fn wait_for_end(&self) {
        let (lock, changed) = &*self.0;
        let waited = changed.wait_timeout_while(lock.lock().unwrap(), PATIENCE, |lines| !lines.ended);
        drop(waited.unwrap());
    }
}

/// A process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// What it writes to stderr.
    pub log: Log,
}

/// Each takes about a millisecond.
const SPAWN_TRIES: u32 = 10_000;

impl Process {
    /// Starts a command; nothing of this process's own service manager reaches it.
    pub fn start(command: &mut Command) -> Self {
        Self::start_on(command, Stdio::null())
    }

    /// As [`Process::start`], with a standard input.
    pub fn start_on(command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut tries = 0;
        let mut child = loop {
            match command.spawn() {
                Ok(child) => break child,
                // Who was forked while the program was copied holds it open for writing until it runs a program of its own.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && tries < SPAWN_TRIES => {
                    tries += 1
                }
                Err(error) => panic!("{command:?}: {error}"),
            }
        };
        let log = Log::follow(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Returns its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Says whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it ends by itself, and returns how. Fails after [`PATIENCE`].
    pub fn ended(&mut self) -> ExitStatus {
        // Its log ends with it.
        self.log.wait_for_end();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the process {} does not end:\n{}",
                self.pid(),
                self.log.text()
            );
            thread::yield_now();
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
