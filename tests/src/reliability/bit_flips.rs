//! A disk that rots: single bits of everything that a daemon keeps turn over, many in a round, and nobody is told.
//!
//! The victim is on a volume of its own, and bits are turned over in its image: no time of a file changes. Content rots while
//! the daemon runs or is stopped; feeds, manifests, block lists and the catalog after it was stopped or killed.
//! Then everything has to be found, named, and good again, and nobody may ever be given a wrong byte.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use avalon_protocol::{
    control::{EventKind, VerifyStatus},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use rand::{Rng as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use walkdir::WalkDir;

use super::{
    report::{Outcome, Report},
    scene::{PEER, VICTIM},
    stock::{Stock, list},
    verifier::verify,
    volume::{FileSystem, Volume},
};
use crate::daemons::{
    PATIENCE, Programs, Studio,
    daemon::{Daemon, run},
    tree,
};

/// After so many flips a studio is looked at as a whole, and another one made.
const FLIPS_PER_STUDIO: u64 = 48;

/// How many frames the sequences have.
const FRAMES: usize = 20;

/// What is never right when all is well.
const COMPLAINTS: [&str; 7] = [
    "damaged",
    "rewritten",
    "feed-held",
    "feed-fork",
    "own-feed-fork",
    "feed-fork-claimed",
    "catalog-rebuilding",
];

/// What rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Content,
    OwnFeed,
    PeerFeed,
    Manifest,
    BlockList,
    Catalog,
}

/// Turns over at least so many bits; or plays the studio of one seed.
pub fn bit_flips(programs: &Programs, wanted: u64, seed: u64, only: Option<u64>) -> Report {
    let mut report = Report::new("bit flips".to_owned(), seed);
    let mut done = 0;
    while done < wanted {
        let studio_seed = only.unwrap_or(seed + report.runs);
        let flips = if only.is_some() { FLIPS_PER_STUDIO } else { FLIPS_PER_STUDIO.min(wanted - done) };
        let played = report.run(&format!("seed {studio_seed}"), || play(programs, flips, studio_seed));
        done += played.map_or(flips, |outcome| outcome.faults.values().sum());
        if only.is_some() {
            break;
        }
    }
    report
}

fn play(programs: &Programs, wanted: u64, seed: u64) -> Result<Outcome, String> {
    let studio = Studio::new(programs.clone());
    let volume = Volume::new(FileSystem::Ext4, &studio.dir().join("image"), &studio.dir().join("n0"))?;
    let mut victim = studio.node(VICTIM, ProjectMode::Mirror);
    let mut peer = studio.node(PEER, ProjectMode::Mirror);
    peer.start();
    victim.config.peers = vec![peer.listen()];
    victim.start();
    peer.config.peers = vec![victim.listen()];
    let stock = Stock::fill(&victim, &peer, FRAMES, seed);
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut disk =
        Disk { studio: &studio, volume, victim, peer, stock, random, readers: 0, faults: BTreeMap::new() };
    while disk.faults.values().sum::<u64>() < wanted {
        disk.round()?;
    }
    let Disk { mut victim, mut peer, mut stock, faults, .. } = disk;
    // It goes on as ever.
    stock.model(&victim, 201, &[20_000]);
    stock.model(&peer, 202, &[20_000]);
    stock.until_whole_at(&victim);
    stock.until_whole_at(&peer);
    victim.kill9();
    peer.kill9();
    let verified = verify(&studio, &[&victim.config, &peer.config], &stock.acknowledged);
    tree::assert_equal(&peer.path(""), &victim.path(""));
    if !verified.faults.is_empty() {
        return Err(verified.faults.join("; "));
    }
    Ok(Outcome { fault: None, faults, files: verified.files, records: verified.records })
}

/// A bit that was turned over, and what was in the file before.
struct Flip {
    kind: Kind,
    path: PathBuf,
    at: u64,
    before: Vec<u8>,
}

impl Flip {
    fn is_undone(&self) -> bool {
        fs::read(&self.path).is_ok_and(|there| there == self.before)
    }

    /// Returns whose feed it is, as logs name it.
    fn feed(&self) -> Option<String> {
        let node = self.path.parent()?;
        let project = node.parent()?.file_name()?;
        Some(format!("{}/{}", project.to_str()?, node.file_name()?.to_str()?))
    }
}

/// Fields are dropped in this order: processes before what they use.
struct Disk<'a> {
    victim: Daemon,
    peer: Daemon,
    volume: Volume,
    stock: Stock,
    random: ChaCha8Rng,
    readers: u32,
    /// What became of the flips.
    faults: BTreeMap<String, u64>,
    studio: &'a Studio,
}

impl Disk<'_> {
    fn round(&mut self) -> Result<(), String> {
        let Self { victim, random, .. } = self;
        if random.random_bool(0.5) {
            victim.kill9();
        } else {
            victim.terminate();
        }
        let content_rests = random.random_range(0..=16);
        let mut flips = Vec::new();
        for (kind, most) in [
            (Kind::Content, content_rests),
            (Kind::OwnFeed, random.random_range(0..=1)),
            (Kind::PeerFeed, random.random_range(0..=1)),
            (Kind::Manifest, random.random_range(0..=4)),
            (Kind::BlockList, random.random_range(0..=2)),
            (Kind::Catalog, random.random_range(0..=2)),
        ] {
            flips.extend(self.flip(kind, most, &flips)?);
        }
        let named = if self.random.random_bool(0.5) { Some(self.named_by_fsck()?) } else { None };
        self.victim.start();
        flips.extend(self.flip(Kind::Content, 16 - content_rests, &flips)?);
        self.victim.until_connected(PEER);
        // Whoever wants something before anybody has looked gets it right.
        if self.random.random_bool(0.5) {
            self.read_by_somebody(&[&self.victim.listen(), &self.peer.listen()])?;
        }
        self.until_well()?;
        let told = self.repair(&flips)?;
        self.read_by_somebody(&[&self.victim.listen()])?;
        self.stock.check_files(&self.victim.path(""))?;
        let log = self.victim.log();
        let is_manifest = |flip: &Flip| flip.kind == Kind::Manifest;
        let manifests_rotted = flips.iter().any(is_manifest);
        for flip in &flips {
            // Of a list that no good manifest names, `fsck` cannot tell how it should be.
            let fsck = named.as_ref().filter(|_| flip.kind != Kind::BlockList || !manifests_rotted);
            let fate = fate(flip, &log, &told, fsck).map_err(|why| {
                format!("byte {} of {}, {:?}: {why}; {log}", flip.at, flip.path.display(), flip.kind)
            })?;
            *self.faults.entry(fate.to_owned()).or_default() += 1;
        }
        Ok(())
    }

    /// Turns a bit of each of so many files of a kind.
    fn flip(&mut self, kind: Kind, most: usize, before: &[Flip]) -> Result<Vec<Flip>, String> {
        let is_new = |path: &PathBuf| before.iter().all(|flip| flip.path != *path);
        let mut files: Vec<PathBuf> = self.files(kind).into_iter().filter(is_new).collect();
        files.shuffle(&mut self.random);
        let mut flips = Vec::new();
        for path in files.into_iter().take(most) {
            let before = fs::read(&path).map_err(|error| error.to_string())?;
            let length = before.len() as u64;
            if length == 0 {
                continue;
            }
            // What is at the beginning says what the rest is.
            let first = if self.random.random_bool(0.1) { length.min(16) } else { length };
            let (at, bit) = (self.random.random_range(0..first), self.random.random_range(0..8));
            if self.volume.rot(&path, at, bit)? {
                flips.push(Flip { kind, path, at, before });
            }
        }
        Ok(flips)
    }

    fn files(&self, kind: Kind) -> Vec<PathBuf> {
        let state = &self.victim.config.state_dir;
        let feeds = || files(&state.join("feeds"));
        let is_of = |path: &PathBuf, own: bool| {
            let node = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            node.is_some_and(|node| !node.starts_with("bad-") && (node == VICTIM) == own)
        };
        match kind {
            Kind::Content => files(&self.victim.path("assets")),
            Kind::OwnFeed => feeds().into_iter().filter(|path| is_of(path, true)).collect(),
            Kind::PeerFeed => feeds().into_iter().filter(|path| is_of(path, false)).collect(),
            Kind::Manifest => files(&state.join("manifests")),
            Kind::BlockList => {
                // A file that was read while it was rotten has left a list of what it held then. No manifest names that, so nobody asks
                // for it any more, and it stays as it is.
                let is_needed = |path: &PathBuf| {
                    let name = path.file_name().and_then(|name| name.to_str());
                    self.stock.acknowledged.iter().any(|file| name == Some(file.hash.to_hex().as_str()))
                };
                files(&state.join("blocks")).into_iter().filter(is_needed).collect()
            }
            Kind::Catalog => {
                let is_used = |path: &PathBuf| {
                    !path
                        .components()
                        .any(|part| part.as_os_str().to_str().is_some_and(|name| name.starts_with("bad-")))
                };
                files(&state.join("catalog")).into_iter().filter(is_used).collect()
            }
        }
    }

    fn fsck(&self) -> (i32, Value) {
        let programs = self.studio.programs();
        let mut command = Command::new(&programs.avalonctl);
        command.env("AVALOND", &programs.avalond).arg("fsck").arg("--config").arg(self.victim.config.file());
        let said = run(command.arg("--json"));
        (said.code, said.json())
    }

    /// Returns the paths of what `fsck` finds.
    fn named_by_fsck(&self) -> Result<BTreeSet<PathBuf>, String> {
        let (_, said) = self.fsck();
        let findings = said["findings"].as_array().ok_or("fsck names nothing")?;
        let paths = findings.iter().filter(|finding| finding["kind"] != "put-aside");
        Ok(paths.filter_map(|finding| Some(PathBuf::from(finding["path"].as_str()?))).collect())
    }

    /// Waits until the victim has its feeds and its catalog back.
    fn until_well(&self) -> Result<(), String> {
        let newest = |api: &_| {
            let list = list(api)?.versions;
            Some(list.into_iter().map(|one| (one.reference, one.generation)).collect::<Vec<_>>())
        };
        self.victim.until("it has its feeds and its catalog back", |api| {
            let is_held = ["feed-held", "catalog-rebuilding"].iter().any(|code| api.has_health(code));
            (!is_held && newest(api)? == newest(&self.peer.api())?).then_some(())
        });
        Ok(())
    }

    /// Reads all again until nothing is wrong any more; returns the files that were said to be damaged.
    fn repair(&self, flips: &[Flip]) -> Result<BTreeSet<PathBuf>, String> {
        let mut events = self.victim.events();
        let (begun, mut told) = (Instant::now(), BTreeSet::new());
        loop {
            let said = self.victim.ctl(&["verify", "--repair", "--json"]);
            let status: VerifyStatus =
                serde_json::from_value(said.json()).map_err(|error| error.to_string())?;
            told.extend(status.damaged.iter().map(|file| self.victim.path(&file.path)));
            let is_good = said.code == i32::from(ExitCode::Ok.code())
                && status.damaged.is_empty()
                && status.unread.is_empty();
            let health = self.victim.api().status().health;
            let is_well = health.iter().all(|item| !COMPLAINTS.contains(&item.code.as_str()));
            let content = flips.iter().filter(|flip| flip.kind == Kind::Content);
            if is_good && is_well && content.clone().all(Flip::is_undone) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("it is not good again: {said:?}, {health:?}; {}", self.victim.log()));
            }
        }
        // What it found by itself it told in events.
        while events.next_within(super::LOOK_AGAIN).is_some() {}
        for event in events.seen {
            if let EventKind::Damaged { files, .. } = event.kind {
                told.extend(files.iter().map(|file| self.victim.path(file)));
            }
        }
        Ok(told)
    }

    /// Lets another node fetch everything from these, and looks at what it got.
    fn read_by_somebody(&mut self, from: &[&str]) -> Result<(), String> {
        self.readers += 1;
        let mut reader = self.studio.node(&format!("ws{}@home", self.readers), ProjectMode::OnDemand);
        reader.config.peers = from.iter().map(|peer| (*peer).to_owned()).collect();
        reader.start();
        let all = self.stock.references.len();
        reader.until("it knows all", |api| (list(api)?.versions.len() == all).then_some(()));
        let mut arguments = vec!["pull"];
        arguments.extend(self.stock.references.iter().map(String::as_str));
        let said = reader.ctl(&arguments);
        if said.code != 0 {
            return Err(format!("who wants it does not get it from {from:?}: {said:?}; {}", reader.log()));
        }
        self.stock.check_files(&reader.path(""))?;
        reader.kill9();
        fs::remove_dir_all(&reader.config.dir).map_err(|error| error.to_string())
    }
}

/// What became of a flip, in words; an error when it was not noticed, or not undone.
fn fate(
    flip: &Flip,
    log: &str,
    told: &BTreeSet<PathBuf>,
    fsck: Option<&BTreeSet<PathBuf>>,
) -> Result<&'static str, String> {
    let by_fsck = |path: &Path| match fsck {
        Some(named) if !named.contains(path) => Err(format!("fsck names only {named:?}")),
        _ => Ok(()),
    };
    let said = |words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    match flip.kind {
        Kind::Content if !told.contains(&flip.path) => Err(format!("nobody was told, only of {told:?}")),
        Kind::Content => Ok("published file: told, repaired"),
        Kind::OwnFeed | Kind::PeerFeed => {
            by_fsck(flip.path.parent().unwrap_or(&flip.path))?;
            let feed = flip.feed().ok_or("no feed")?;
            let name = feed.rsplit(['/', '@']).next().unwrap_or_default();
            match flip.kind {
                Kind::OwnFeed if said(&["put aside", &feed]) => Ok("own feed: put aside, came back"),
                Kind::OwnFeed if said(&["torn the end", name]) => Ok("own feed: end cut off, came back"),
                Kind::PeerFeed if said(&["put aside", &feed]) => Ok("feed of a peer: put aside, came back"),
                Kind::PeerFeed if said(&["torn the end", name]) => {
                    Ok("feed of a peer: end cut off, came back")
                }
                _ => Err("nobody was told".to_owned()),
            }
        }
        Kind::Manifest | Kind::BlockList => {
            by_fsck(&flip.path)?;
            match (flip.is_undone(), flip.kind) {
                (true, Kind::Manifest) => Ok("manifest: fetched again"),
                (true, _) => Ok("block list: made again"),
                (false, _) => Err("it is as it was turned".to_owned()),
            }
        }
        Kind::Catalog if said(&["the catalog was built anew"]) || said(&["while the daemon runs"]) => {
            Ok("catalog: built anew")
        }
        // Its rows were proved at the start, and its answers are those of the peer.
        Kind::Catalog => Ok("catalog: harmless"),
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = WalkDir::new(dir).sort_by_file_name().into_iter().flatten();
    entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}
