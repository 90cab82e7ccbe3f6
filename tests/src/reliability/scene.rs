//! A studio of two nodes of which one, the victim, meets the fault.

use std::{
    cell::Cell,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    control::{ListReply, Presence, PublishReply, PublishRequest, VersionItem, route},
    mode::ProjectMode,
};

use super::{
    report::Outcome,
    trace::{Fault, Plan, Seen, Tracer},
    verifier::{Acknowledged, verify},
    volume::{FileSystem, Volume},
};
use crate::daemons::{
    Programs, Studio,
    api::{Api, ApiFailure},
    daemon::Daemon,
    tree,
};

/// The victim's name, and the other's.
pub const VICTIM: &str = "srv@london";
/// See [`VICTIM`].
pub const PEER: &str = "srv@montreal";

/// The daemon ended in the middle of a scenario, as a fault wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

/// What of the victim's is on a volume of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// All: state and project.
    All(FileSystem),
    /// Its state directory.
    State(FileSystem),
}

/// The studio. Fields are dropped in this order: processes before what they use.
#[derive(Debug)]
pub struct Scene {
    /// Meets the fault.
    pub victim: Daemon,
    /// Does not.
    pub peer: Daemon,
    acknowledged: Vec<Acknowledged>,
    /// How many files an artist's program had no room for, and how many publishes a daemon refused.
    refused: (u64, u64),
    /// How many publishes got no answer though the daemon lived.
    unanswered: u64,
    volume: Option<Volume>,
    tracer: PathBuf,
    traces: Cell<u32>,
    studio: Studio,
}

impl Scene {
    /// Makes a studio whose nodes run and know each other. The victim is in this mode, the other mirrors all there is. `tracer` is a program that answers to
    /// [`super::trace::LAUNCH`] and [`super::trace::FOLLOW`]. What is `mounted` is on a volume of its own.
    ///
    /// # Errors
    /// When the machine has no such volume.
    pub fn new(
        programs: Programs,
        tracer: &Path,
        mode: ProjectMode,
        mounted: Option<Mounted>,
    ) -> Result<Self, String> {
        let studio = Studio::new(programs);
        let (image, dir) = (studio.dir().join("image"), studio.dir().join("n0"));
        let volume = match mounted {
            None => None,
            Some(Mounted::All(system)) => Some(Volume::new(system, &image, &dir)?),
            Some(Mounted::State(system)) => Some(Volume::new(system, &image, &dir.join("state"))?),
        };
        let mut victim = studio.node(VICTIM, mode);
        let mut peer = studio.node(PEER, ProjectMode::Mirror);
        peer.start();
        victim.config.peers = vec![peer.listen()];
        victim.start();
        victim.until_connected(PEER);
        let (acknowledged, traces) = (Vec::new(), Cell::new(0));
        let tracer = tracer.to_owned();
        Ok(Self {
            victim,
            peer,
            acknowledged,
            refused: (0, 0),
            unanswered: 0,
            volume,
            tracer,
            traces,
            studio,
        })
    }

    /// Returns the victim's volume.
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    /// Returns how many files an artist's program had no room for, and how many publishes a daemon refused.
    pub fn refused(&self) -> (u64, u64) {
        self.refused
    }

    /// Returns how many publishes got no answer though the daemon lived.
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Stops the victim, so that all it did up to here is safe from what comes.
    pub fn rest(&mut self) {
        self.victim.terminate();
        if self.volume.is_some() {
            rustix::fs::sync();
        }
    }

    /// Starts the victim under a plan, lets the scenario play, and ends the victim if it is still there. Returns what the
    /// tracer saw.
    ///
    /// # Errors
    /// When the tracer failed.
    pub fn traced(
        &mut self,
        fault: Fault,
        reads: bool,
        play: impl FnOnce(&mut Self) -> Result<(), Ended>,
    ) -> Result<Seen, String> {
        let plan = Plan { under: self.victim.config.dir.clone(), fault, reads };
        let dir = self.studio.dir().join(format!("trace{}", self.traces.replace(self.traces.get() + 1)));
        fs::create_dir(&dir).map_err(|error| error.to_string())?;
        self.victim.set_launcher(Tracer::launcher(&self.tracer, &plan));
        let process = self.victim.launch();
        let tracer = Tracer::attach(&self.tracer, process.pid(), &plan, &dir);
        let ready = process.log.wait_for("avalond::app: ready");
        if ready && play(self).is_ok() && self.is_alive() {
            self.victim.terminate();
        } else {
            self.victim.kill9();
        }
        self.victim.set_launcher(Vec::new());
        tracer.seen()
    }

    /// Says whether the victim runs.
    pub fn is_alive(&mut self) -> bool {
        self.victim.process().is_running()
    }

    /// Mounts the victim's volume again. All that was acknowledged has to lie there before anybody does anything; what
    /// else was being written may be torn.
    ///
    /// # Errors
    /// When it cannot be mounted, or with what is lost.
    pub fn mount_again(&mut self) -> Result<(), String> {
        if let Some(volume) = &mut self.volume {
            volume.mount_again()?;
        }
        self.check_acknowledged()
    }

    /// Compares what was acknowledged at the victim with what lies there, before anybody writes it again.
    fn check_acknowledged(&self) -> Result<(), String> {
        let of_victim = self.acknowledged.iter().filter(|file| file.node == self.victim.config.node);
        let is_there = |file: &&Acknowledged| {
            fs::read(self.victim.path("").join(&file.path))
                .is_ok_and(|bytes| blake3::hash(&bytes) == file.hash)
        };
        let lost: Vec<_> = of_victim.filter(|file| !is_there(file)).map(|file| &file.path).collect();
        if lost.is_empty() {
            return Ok(());
        }
        Err(format!("acknowledged, and not on the disk: {lost:?}"))
    }

    /// Does what an artist does who finds a file torn that was never published: writes it again.
    pub fn write_torn_again(&self, dir: &str, files: &[(String, Vec<u8>)]) -> Result<(), String> {
        for (name, content) in files {
            let inside = Path::new(dir).join(name);
            let path = self.victim.path("").join(&inside);
            let is_acknowledged = self.acknowledged.iter().any(|file| file.path == inside);
            if !is_acknowledged && fs::read(&path).is_ok_and(|there| there != *content) {
                fs::write(&path, content).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Writes files of a version at a node and publishes it explicitly. What the daemon says is published is
    /// remembered, for the verifier to find.
    ///
    /// # Errors
    /// The daemon ended.
    pub fn publish(&mut self, at: At, dir: &str, files: &[(String, Vec<u8>)]) -> Result<(), Ended> {
        let daemon = at.daemon(self);
        for (name, content) in files {
            let path = daemon.path(dir).join(name);
            // Who publishes again what is there does not write it again, which would change its time.
            if fs::read(&path).is_ok_and(|there| there == *content) {
                continue;
            }
            let written = path.parent().map(fs::create_dir_all).transpose();
            match written.and_then(|_| fs::write(&path, content)) {
                Ok(()) => {}
                // The artist's program says so, and removes what it could not write.
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    fs::remove_file(&path).ok();
                    self.refused.0 += 1;
                    return Ok(());
                }
                // After a power cut it has a volume that refuses it.
                Err(_) => return Err(Ended),
            }
        }
        let request = PublishRequest {
            paths: vec![daemon.path(dir).to_str().expect("UTF-8").to_owned()],
            comment: String::new(),
            author: "anna".into(),
            inputs: Vec::new(),
            metadata: Default::default(),
        };
        let reply: PublishReply = match daemon.api().post(route::PUBLISH, &request) {
            Ok(reply) => reply,
            Err(ApiFailure::Unreachable(_)) => {
                self.unanswered += u64::from(self.is_alive());
                return Err(Ended);
            }
            // It says that it cannot: nothing is acknowledged.
            Err(ApiFailure::Refused(_)) => {
                self.refused.1 += 1;
                return Ok(());
            }
        };
        let node = daemon.config.node.clone();
        let failed = reply.versions.iter().any(|version| version.error.is_some());
        self.refused.1 += u64::from(failed);
        if !failed {
            self.acknowledged.extend(files.iter().map(|(name, content)| Acknowledged {
                node: node.clone(),
                path: Path::new(dir).join(name),
                hash: blake3::hash(content),
            }));
        }
        Ok(())
    }

    /// Forgets that a file was acknowledged, because it is about to be replaced.
    pub fn forget(&mut self, path: &Path) {
        self.acknowledged.retain(|file| file.path != path);
    }

    /// Waits until the victim has all of a version, or has ended.
    ///
    /// # Errors
    /// The daemon ended.
    pub fn until_here(&mut self, reference: &str) -> Result<(), Ended> {
        self.until(|daemon| {
            let list = versions(&daemon.api())?;
            let found = list.iter().find(|version| version.reference == reference)?;
            (found.here == Presence::Complete).then_some(())
        })
    }

    /// Waits until the victim has come to something, or has ended, or does not get there in the time that a run has.
    ///
    /// # Errors
    /// The daemon ended, or it cannot.
    pub fn until<T>(&mut self, condition: impl Fn(&Daemon) -> Option<T>) -> Result<T, Ended> {
        let begun = std::time::Instant::now();
        while begun.elapsed() < super::RUN_PATIENCE && self.is_alive() {
            if let Some(found) = condition(&self.victim) {
                return Ok(found);
            }
            std::thread::yield_now();
            std::thread::park_timeout(super::LOOK_AGAIN);
        }
        Err(Ended)
    }

    /// Waits until both nodes have these versions whole and say that nothing is wrong; kills both, and looks at what lies there.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn verify(&mut self, references: &[String]) -> Result<Outcome, String> {
        for (daemon, other) in [(&self.victim, &self.peer), (&self.peer, &self.victim)] {
            daemon.until("all versions are here", |api| {
                // A catalog that lacked room a moment ago may not be back yet.
                let list = versions(api)?;
                let newest = |one: &VersionItem| (one.reference.clone(), one.generation);
                let others: Vec<_> = versions(&other.api())?.iter().map(newest).collect();
                if list.iter().map(newest).collect::<Vec<_>>() != others {
                    return None;
                }
                let whole =
                    list.iter().filter(|version| version.here == Presence::Complete && !version.conflict);
                let whole: Vec<&String> = whole.map(|version| &version.reference).collect();
                (list.len() == references.len() && references.iter().all(|wanted| whole.contains(&wanted)))
                    .then_some(())
            });
        }
        self.victim.kill9();
        self.peer.kill9();
        let verified = verify(&self.studio, &[&self.victim.config, &self.peer.config], &self.acknowledged);
        tree::assert_equal(&self.victim.path(""), &self.peer.path(""));
        if !verified.faults.is_empty() {
            return Err(verified.faults.join("; "));
        }
        Ok(Outcome { files: verified.files, records: verified.records, ..Outcome::default() })
    }
}

fn versions(api: &Api) -> Option<Vec<VersionItem>> {
    let list: ListReply = api.get(route::VERSIONS).ok()?;
    Some(list.versions)
}

/// One of the two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Who meets the fault.
    Victim,
    /// Who does not.
    Peer,
}

impl At {
    fn daemon(self, scene: &Scene) -> &Daemon {
        match self {
            Self::Victim => &scene.victim,
            Self::Peer => &scene.peer,
        }
    }
}
