//! Faults at exact system calls of a daemon, without a change to the daemon.
//!
//! A daemon that is watched runs under a filter of the kernel (seccomp) that stops it at each system call which changes a
//! file system or makes a change durable, and a tracer (ptrace) is told of each stop. Those that concern the daemon's own
//! directories are its *steps*, counted over all of its threads. The tracer lets it go on, or does what the [`Plan`] says
//! at one of them: kills it, cuts the power of its volume, or lets calls fail. So every step of a scenario can be
//! enumerated, those of libraries included: until a run has fewer steps than the one that was asked for.
//!
//! It takes three processes: the daemon, which first is a *launcher* ([`launch()`]) that waits for the tracer, puts the filter
//! in place and becomes the daemon; the tracer ([`follow()`]); and whoever runs the scenario, for whom [`Tracer`] stands.

mod calls;
mod follow;
mod launch;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde::{Deserialize, Serialize};

pub(super) use self::follow::cut;
pub use self::{calls::Kind, follow::follow, launch::launch};

/// The argument that makes a program of these tests a launcher, and the one that makes it a tracer.
pub const LAUNCH: &str = "traced-launch";
/// See [`LAUNCH`].
pub const FOLLOW: &str = "traced-follow";

/// What to do at which step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Only calls about files beneath here are steps.
    pub under: PathBuf,
    /// What goes wrong.
    pub fault: Fault,
    /// Whether calls that read are steps of their own kind too: there are many more of them.
    pub reads: bool,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Nothing: the steps are only counted.
    None,
    /// The daemon is killed before step `at`, from 1, takes effect.
    Kill {
        /// Which step.
        at: u64,
    },
    /// The volume loses what is not on the disk at step `at`, and the daemon is killed.
    Cut {
        /// Which step.
        at: u64,
        /// Where the volume is mounted.
        mount: PathBuf,
    },
    /// Calls of a kind fail and do nothing.
    Fail {
        /// Which calls.
        kind: Kind,
        /// The first of this kind that fails, from 1.
        from: u64,
        /// How many fail from there on.
        count: u64,
        /// With which number of `errno`.
        errno: i32,
    },
}

/// What a tracer saw, when the daemon has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// How many steps there were.
    pub steps: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// The step at which the fault was, such as `Rename /srv/.../v001`; none when it never came to that.
    pub fired: Option<String>,
}

/// The tracer of one daemon's process.
#[derive(Debug)]
pub struct Tracer {
    process: Child,
    out: PathBuf,
}

impl Tracer {
    /// Returns what goes before a daemon's own command line so that it can be traced.
    pub fn launcher(program: &Path, plan: &Plan) -> Vec<String> {
        let reads = if plan.reads { "reads" } else { "changes" };
        vec![program.to_str().expect("a path in UTF-8").to_owned(), LAUNCH.to_owned(), reads.to_owned()]
    }

    /// Traces a launcher. `dir` is for files of the tracer's own.
    pub fn attach(program: &Path, pid: u32, plan: &Plan, dir: &Path) -> Self {
        let (plan_file, out) = (dir.join("plan.json"), dir.join("seen.json"));
        fs::write(&plan_file, serde_json::to_vec(plan).expect("plain data")).expect("a writable directory");
        let errors = File::create(dir.join("tracer.log")).expect("a writable directory");
        let process = Command::new(program)
            .args([FOLLOW, &pid.to_string()])
            .args([&plan_file, &out])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("this program can be started");
        Self { process, out }
    }

    /// Says why this machine lets nothing be traced, if it does not.
    ///
    /// # Errors
    /// With the reason.
    pub fn check(program: &Path, dir: &Path) -> Result<(), String> {
        let plan = Plan { under: dir.to_owned(), fault: Fault::None, reads: false };
        let launcher = Self::launcher(program, &plan);
        let traced = Command::new(&launcher[0]).args(&launcher[1..]).arg("true").stdin(Stdio::null()).spawn();
        let mut traced = traced.map_err(|error| error.to_string())?;
        let seen = Self::attach(program, traced.id(), &plan, dir).seen();
        // Without a tracer it waits for one for ever.
        traced.kill().ok();
        traced.wait().map_err(|error| error.to_string())?;
        seen.map(drop)
    }

    /// Waits until the daemon has ended and returns what was seen.
    ///
    /// # Errors
    /// When the tracer failed, with what it said.
    pub fn seen(mut self) -> Result<Seen, String> {
        let status = self.process.wait().map_err(|error| error.to_string())?;
        let log = || fs::read_to_string(self.out.with_file_name("tracer.log")).unwrap_or_default();
        if !status.success() {
            return Err(format!("the tracer ended with {status}: {}", log()));
        }
        let seen =
            fs::read(&self.out).map_err(|error| format!("{}: {error}; {}", self.out.display(), log()))?;
        serde_json::from_slice(&seen).map_err(|error| error.to_string())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // The daemon that it traces goes with it, which is meant: whoever drops this has given up on it.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
