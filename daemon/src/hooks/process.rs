//! One run of a hook: a process group of its own, with nothing of the daemon's environment, until it ends or its time is over.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::{Hook, HookEvent, allowed::check_program, happening::Happening};
use crate::{clock::Clock, core::blocking};

/// How much of what a hook writes reaches the log, of each of its two outputs.
const OUTPUT_BYTES: usize = 4096;
/// Where hooks find programs.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A hook with the values that it runs with.
#[derive(Debug)]
pub(super) struct Run {
    hook: String,
    event: HookEvent,
    reference: String,
    program: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    stdin: Arc<Vec<u8>>,
    timeout: Duration,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) hook: String,
    pub(super) event: HookEvent,
    pub(super) reference: String,
    /// The beginning of what it wrote.
    pub(super) output: String,
    pub(super) elapsed: Duration,
    /// Why, when it failed.
    pub(super) failed: Option<String>,
}

impl Ended {
    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Run {
    pub(super) fn new(hook: &Hook, happening: &Happening) -> Self {
        let value = |name: &str| happening.values.get(name).cloned().unwrap_or_default();
        let variables = happening
            .values
            .iter()
            .map(|(name, value)| (format!("AVALON_{}", name.to_uppercase()), value.clone()));
        let own =
            [("PATH", PATH), ("LANG", "C.UTF-8")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            hook: hook.name(),
            event: happening.event,
            reference: happening.reference(),
            program: hook.program.clone(),
            args: hook.args.iter().map(|arg| arg.with(value)).collect(),
            environment: variables.chain(own).collect(),
            stdin: Arc::clone(&happening.json),
            timeout: hook.timeout,
        }
    }

    /// Runs it. When this is dropped, the process and what it has started are killed.
    pub(super) async fn finish(self, clock: Arc<dyn Clock>) -> Ended {
        let started = clock.monotonic();
        let (output, failed) = match self.spawn().await {
            Ok(child) => self.wait(child, &*clock).await,
            Err(why) => (String::new(), Some(why)),
        };
        let elapsed = clock.monotonic().saturating_sub(started);
        Ended { hook: self.hook, event: self.event, reference: self.reference, output, elapsed, failed }
    }

    async fn spawn(&self) -> Result<Child, String> {
        let program = self.program.clone();
        blocking(move || check_program(&program)).await?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().map_err(|error| format!("it cannot be started: {error}"))
    }

    async fn wait(&self, mut child: Child, clock: &dyn Clock) -> (String, Option<String>) {
        let group = Group::of(&child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let fed = async {
            if let Some(mut stdin) = stdin {
                // A hook that does not read is none of our business.
                stdin.write_all(&self.stdin).await.ok();
            }
        };
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let status = {
            let all = async {
                let (status, (), (), ()) =
                    tokio::join!(child.wait(), fed, keep(stdout, &mut said), keep(stderr, &mut complained));
                status
            };
            tokio::select! {
                status = all => Some(status),
                () = clock.sleep(self.timeout) => None,
            }
        };
        said.extend(complained);
        let output = String::from_utf8_lossy(&said).trim_end().to_owned();
        let failed = match status {
            Some(Ok(status)) => {
                group.forget();
                (!status.success()).then(|| format!("it ended with {status}"))
            }
            Some(Err(error)) => Some(format!("it cannot be waited for: {error}")),
            None => {
                drop(group);
                child.wait().await.ok();
                let seconds = self.timeout.as_secs_f64();
                Some(format!("it was killed after {seconds} s, with all that it had started"))
            }
        };
        (output, failed)
    }
}

/// Reads to the end and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let room = OUTPUT_BYTES - kept.len();
        kept.extend(piece.iter().take(length.min(room)));
    }
}

/// A process group that is killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// Lets it be: its first process ended by itself and closed what it wrote to.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}
