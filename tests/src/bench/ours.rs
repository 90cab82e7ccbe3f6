//! Our own: daemons at both ends, a publish at the near one, `avalonctl pull` at the far one.

use std::{path::PathBuf, time::Duration};

use avalon_protocol::mode::ProjectMode;

use super::{
    contender::{Contender, Load, Round},
    ends::{Ends, FAR, NEAR, timed, until},
};
use crate::daemons::{PROJECT, Studio, daemon::Daemon, tree};

/// How long 20,000 files may take to be published and announced.
const PUBLISH_LIMIT: Duration = Duration::from_secs(300);

/// Makes a daemon at one end and starts it.
pub fn daemon(studio: &Studio, ends: &Ends, end: &str, node: &str, peers: &[&Daemon]) -> Daemon {
    let mut daemon = studio.node(node, ProjectMode::OnDemand);
    daemon.config.listen = format!("{}:0", ends.address(end));
    daemon.config.peers = peers.iter().map(|peer| peer.listen()).collect();
    // A debug log of 20,000 files would be measured as well.
    daemon.set_env("AVALOND_LOG", "avalond=info");
    if let Some(namespace) = ends.namespace(end) {
        daemon.set_network(namespace);
    }
    daemon.start();
    daemon
}

/// Writes files of noise into a new version directory: one file alone, or numbered ones.
pub fn write_version(daemon: &Daemon, subset: &str, seed: u64, load: Load) -> PathBuf {
    let dir = daemon.path(&format!("assets/robot/publish/{subset}/v001"));
    if load.files == 1 {
        tree::write_noise(&dir.join(format!("{subset}.abc")), seed, load.bytes_each);
    } else {
        let noise = tree::noise(seed, load.bytes() as usize);
        // A sequence: representations that are frames, as renders are.
        for (index, content) in noise.chunks(load.bytes_each as usize).enumerate() {
            tree::write(&dir.join(format!("{subset}.exr/{subset}.{:06}.exr", 1001 + index)), content);
        }
    }
    dir
}

/// Publishes a version directory and waits until `far` knows it.
pub fn publish(near: &Daemon, far: &Daemon, studio: &Studio, subset: &str, version: &str) -> String {
    let dir = near.path(&format!("assets/robot/publish/{subset}/{version}"));
    let mut command = std::process::Command::new(&studio.programs().avalonctl);
    command.arg("--socket").arg(&near.config.socket).args(["--quiet", "publish"]).arg(dir);
    assert!(timed(&mut command, PUBLISH_LIMIT).is_some(), "{subset} is not published:\n{}", near.log());
    let reference = format!("{PROJECT}:robot/{subset}@{version}");
    let is_known = || far.api().locate_one(&reference).is_some();
    assert!(until(PUBLISH_LIMIT, is_known), "{reference} is not announced:\n{}", far.log());
    reference
}

/// Pulls with the command line, and returns how long the command took.
pub fn pull(far: &Daemon, studio: &Studio, reference: &str, limit: Duration) -> Option<Duration> {
    let mut command = std::process::Command::new(&studio.programs().avalonctl);
    command.arg("--socket").arg(&far.config.socket).args(["--quiet", "pull", reference]);
    let time = timed(&mut command, limit);
    if time.is_none() {
        // What goes on would be measured with the next one.
        for job in far.api().jobs().iter().filter(|job| !job.state.is_final()) {
            far.ctl(&["--quiet", "cancel", &job.id]);
        }
    }
    time
}

/// Our contender.
#[derive(Debug)]
pub struct Ours<'a> {
    studio: &'a Studio,
    /// Publishes.
    pub near: Daemon,
    /// Pulls.
    pub far: Daemon,
}

impl<'a> Ours<'a> {
    /// Starts both daemons.
    pub fn start(studio: &'a Studio, ends: &Ends) -> Self {
        let near = daemon(studio, ends, NEAR, "ws1@london", &[]);
        let far = daemon(studio, ends, FAR, "srv@montreal", &[&near]);
        far.until_connected("ws1@london");
        Self { studio, near, far }
    }

    /// Writes and publishes what is fetched in a round; returns where it lies.
    pub fn prepare(&self, number: usize, seed: u64, load: Load) -> PathBuf {
        let subset = subset(number);
        let dir = write_version(&self.near, &subset, seed, load);
        publish(&self.near, &self.far, self.studio, &subset, "v001");
        dir
    }
}

/// Each round has a subset of its own: nothing of an earlier one is of use.
fn subset(number: usize) -> String {
    format!("cache{number}")
}

impl Contender for Ours<'_> {
    fn name(&self) -> String {
        "ours".into()
    }

    fn servers(&mut self) -> Vec<u32> {
        vec![self.near.process().pid(), self.far.process().pid()]
    }

    fn fetch(&mut self, round: &Round<'_>) -> Option<Duration> {
        let subset = subset(round.number);
        let time = pull(&self.far, self.studio, &format!("{PROJECT}:robot/{subset}@v001"), round.limit)?;
        tree::assert_equal(round.source, &self.far.path(&format!("assets/robot/publish/{subset}/v001")));
        Some(time)
    }
}
