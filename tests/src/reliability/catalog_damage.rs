//! A catalog that is deleted, cut, overwritten or exchanged while its daemon is stopped.
//!
//! The daemon must start, build what it cannot use, and never give an answer that is not that of the feeds: not in the first
//! moment either.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use avalon_protocol::{
    control::{ListReply, Presence},
    mode::ProjectMode,
};
use rand::{Rng as _, RngCore as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use walkdir::WalkDir;

use super::{
    LOOK_AGAIN,
    report::{Back, Outcome, Report},
    scene::{PEER, VICTIM},
    stock::{Stock, complete_at, list},
    verifier::{holders, verify},
};
use crate::daemons::{PATIENCE, Programs, Studio, daemon::Daemon, tree};

/// After so many damages a studio is looked at as a whole, and another one made.
const DAMAGES_PER_STUDIO: u64 = 40;

/// How many frames the sequences have.
const FRAMES: usize = 150;

/// What sled reads at once.
const PAGE: u64 = 4096;

/// What is done to the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Deleted,
    GenerationDeleted,
    FileDeleted,
    Cut,
    Extended,
    BitFlipped,
    BytesFlipped,
    PageZeroed,
    Overwritten,
    CurrentDeleted,
    CurrentGarbage,
    CurrentOther,
    CurrentDirectory,
    GenerationFile,
    OlderGeneration,
    OfAnotherNode,
    Unfinished,
}

impl Damage {
    const ALL: [Self; 17] = [
        Self::Deleted,
        Self::GenerationDeleted,
        Self::FileDeleted,
        Self::Cut,
        Self::Extended,
        Self::BitFlipped,
        Self::BytesFlipped,
        Self::PageZeroed,
        Self::Overwritten,
        Self::CurrentDeleted,
        Self::CurrentGarbage,
        Self::CurrentOther,
        Self::CurrentDirectory,
        Self::GenerationFile,
        Self::OlderGeneration,
        Self::OfAnotherNode,
        Self::Unfinished,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::GenerationDeleted => "generation deleted",
            Self::FileDeleted => "a file deleted",
            Self::Cut => "a file cut",
            Self::Extended => "a file longer",
            Self::BitFlipped => "a bit flipped",
            Self::BytesFlipped => "30 bytes flipped",
            Self::PageZeroed => "a page zeroed",
            Self::Overwritten => "a file overwritten",
            Self::CurrentDeleted => "CURRENT deleted",
            Self::CurrentGarbage => "CURRENT garbage",
            Self::CurrentOther => "CURRENT names another",
            Self::CurrentDirectory => "CURRENT a directory",
            Self::GenerationFile => "the generation a file",
            Self::OlderGeneration => "an older generation",
            Self::OfAnotherNode => "that of another node",
            Self::Unfinished => "an unfinished generation beside it",
        }
    }
}

/// Damages at least so many catalogs; or plays the studio of one seed.
pub fn catalog_damage(programs: &Programs, wanted: u64, seed: u64, only: Option<u64>) -> Report {
    let mut report = Report::new("catalog damage".to_owned(), seed);
    let (mut done, mut times) = (0, Vec::new());
    while done < wanted {
        let studio_seed = only.unwrap_or(seed + report.runs);
        let damages = if only.is_some() { DAMAGES_PER_STUDIO } else { DAMAGES_PER_STUDIO.min(wanted - done) };
        report.run(&format!("seed {studio_seed}"), || play(programs, damages, studio_seed, &mut times));
        done += damages;
        if only.is_some() {
            break;
        }
    }
    report.back = Back::of(times);
    report
}

fn play(programs: &Programs, damages: u64, seed: u64, times: &mut Vec<u64>) -> Result<Outcome, String> {
    let studio = Studio::new(programs.clone());
    let mut peer = studio.node(PEER, ProjectMode::Mirror);
    peer.start();
    let mut victim = studio.node(VICTIM, ProjectMode::Mirror);
    victim.config.peers = vec![peer.listen()];
    victim.start();
    peer.config.peers = vec![victim.listen()];
    let mut stock = Stock::fill(&victim, &peer, FRAMES, seed);
    // An older catalog of its own, and the peer's.
    victim.terminate();
    peer.terminate();
    let (older, others) = (studio.dir().join("older"), studio.dir().join("others"));
    tree::copy(&generation(&victim)?, &older);
    tree::copy(&generation(&peer)?, &others);
    peer.start();
    victim.start();
    stock.model(&victim, 301, &[5_000; 40]);
    stock.model(&peer, 302, &[5_000; 40]);
    stock.until_whole_at(&victim);
    stock.until_whole_at(&peer);
    let random = ChaCha8Rng::seed_from_u64(seed);
    let mut scene = Damaged { victim, peer, stock, random, copies: (older, others), faults: BTreeMap::new() };
    scene
        .victim
        .until("it knows what the peer holds", |_| scene.answers().filter(|answers| answers.are_whole()));
    for _ in 0..damages {
        times.push(scene.one(&studio)?);
    }
    let Damaged { mut victim, mut peer, mut stock, faults, .. } = scene;
    // What it knows of files in its tree is right as well: it serves them, and knows what is new.
    stock.model(&victim, 401, &[20_000]);
    stock.model(&peer, 402, &[20_000]);
    stock.until_whole_at(&victim);
    stock.until_whole_at(&peer);
    let reader = studio.on_demand("ws1@home", &[&victim]);
    peer.kill9();
    reader.until("it knows all", |api| (list(api)?.versions.len() == stock.references.len()).then_some(()));
    let mut arguments = vec!["pull"];
    arguments.extend(stock.references.iter().map(String::as_str));
    let said = reader.ctl(&arguments);
    if said.code != 0 {
        return Err(format!("who wants it does not get it: {said:?}; {}", victim.log()));
    }
    stock.check_files(&reader.path(""))?;
    victim.kill9();
    let verified = verify(&studio, &[&victim.config, &peer.config], &stock.acknowledged);
    tree::assert_equal(&peer.path(""), &victim.path(""));
    if !verified.faults.is_empty() {
        return Err(verified.faults.join("; "));
    }
    Ok(Outcome { fault: None, faults, files: verified.files, records: verified.records })
}

/// What a daemon answers about all versions.
#[derive(Debug, PartialEq)]
struct Answers {
    list: ListReply,
    holders: BTreeMap<String, BTreeSet<String>>,
}

impl Answers {
    fn are_whole(&self) -> bool {
        self.list.versions.iter().all(|one| one.here == Presence::Complete)
            && self.holders.values().all(|nodes| nodes.len() == 2)
    }
}

struct Damaged {
    victim: Daemon,
    peer: Daemon,
    stock: Stock,
    random: ChaCha8Rng,
    /// Of catalogs: an older one of its own, and one of the peer.
    copies: (PathBuf, PathBuf),
    faults: BTreeMap<String, u64>,
}

impl Damaged {
    /// Damages the catalog once; returns how long it took until the daemon answered, in milliseconds.
    fn one(&mut self, studio: &Studio) -> Result<u64, String> {
        let before = self.answers().ok_or("it does not answer")?;
        if self.random.random_bool(0.5) {
            self.victim.kill9();
        } else {
            self.victim.terminate();
        }
        let folded = holders(studio, &self.victim.config);
        let folded: BTreeMap<String, BTreeSet<String>> = folded
            .into_iter()
            .map(|(version, nodes)| (version, nodes.iter().map(ToString::to_string).collect()))
            .collect();
        if before.holders != folded {
            return Err(format!("it said {:?}, and the feeds say {folded:?}", before.holders));
        }
        let damage = *Damage::ALL.choose(&mut self.random).ok_or("no damage")?;
        let what = self.damage(damage).map_err(|error| format!("{damage:?}: {error}"))?;
        let begun = Instant::now();
        let after = self.started()?;
        let took = begun.elapsed();
        let told = |why: &str| format!("{what}: {why}; {}", self.victim.log());
        if after != before {
            return Err(told(&format!("it says {after:?}, and said {before:?}")));
        }
        let verified = self.victim.ctl(&["catalog", "verify", "--json"]);
        if verified.code != 0 || verified.json()["ok"] != true {
            return Err(told(&format!("{verified:?}")));
        }
        let is_new = ["the catalog was built anew", "while the daemon runs"];
        let log = self.victim.log();
        let fate = if is_new.iter().any(|words| log.contains(words)) { "built anew" } else { "still good" };
        *self.faults.entry(format!("{}: {fate}", damage.name())).or_default() += 1;
        Ok(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }

    /// Starts the victim and returns its first answers.
    fn started(&mut self) -> Result<Answers, String> {
        let begun = Instant::now();
        self.victim.launch();
        loop {
            if let Some(answers) = self.answers() {
                return Ok(answers);
            }
            if begun.elapsed() > PATIENCE || !self.victim.process().is_running() {
                return Err(format!("it does not come back: {}", self.victim.log()));
            }
            thread::park_timeout(LOOK_AGAIN);
        }
    }

    /// Returns what the victim answers; none while it cannot.
    fn answers(&self) -> Option<Answers> {
        let api = self.victim.api();
        let list = list(&api)?;
        let holders = list.versions.iter().map(|one| {
            let located = api.locate(&one.reference).ok()?;
            let item = located.versions.first()?;
            Some((one.reference.clone(), complete_at(item).into_iter().collect()))
        });
        let holders = holders.collect::<Option<_>>()?;
        Some(Answers { list, holders })
    }

    /// Does it; returns what was done, in words.
    fn damage(&mut self, damage: Damage) -> Result<String, io::Error> {
        let catalog = self.victim.config.state_dir.join("catalog");
        let current = catalog.join("CURRENT");
        let generation = generation(&self.victim).map_err(io::Error::other)?;
        let random = &mut self.random;
        let files: Vec<PathBuf> = WalkDir::new(&generation)
            .sort_by_file_name()
            .into_iter()
            .flatten()
            .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0))
            .map(walkdir::DirEntry::into_path)
            .collect();
        let path = files.choose(random).ok_or(io::ErrorKind::NotFound)?.clone();
        let length = fs::metadata(&path)?.len();
        let file = File::options().read(true).write(true).open(&path)?;
        let mut detail = path.display().to_string();
        let mut garbage = vec![0; 600];
        random.fill_bytes(&mut garbage);
        match damage {
            Damage::Deleted => fs::remove_dir_all(&catalog)?,
            Damage::GenerationDeleted => fs::remove_dir_all(&generation)?,
            Damage::FileDeleted => fs::remove_file(&path)?,
            Damage::Cut => file.set_len(random.random_range(0..length))?,
            Damage::Extended => file.write_all_at(&garbage, length)?,
            Damage::BitFlipped | Damage::BytesFlipped => {
                for _ in 0..if damage == Damage::BitFlipped { 1 } else { 30 } {
                    let (at, mut byte) = (random.random_range(0..length), [0]);
                    file.read_exact_at(&mut byte, at)?;
                    file.write_all_at(&[byte[0] ^ 1 << random.random_range(0..8)], at)?;
                    detail.push_str(&format!(" at {at}"));
                }
            }
            Damage::PageZeroed => {
                let at = random.random_range(0..length) / PAGE * PAGE;
                let zeros = vec![0; usize::try_from(PAGE.min(length - at)).unwrap_or(0)];
                file.write_all_at(&zeros, at)?;
                detail.push_str(&format!(" at {at}"));
            }
            Damage::Overwritten => {
                let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
                random.fill_bytes(&mut bytes);
                file.write_all_at(&bytes, 0)?;
            }
            Damage::CurrentDeleted => fs::remove_file(&current)?,
            Damage::CurrentGarbage => {
                let texts: [&[u8]; 8] = [
                    b"",
                    b"\n",
                    b"-1\n",
                    b"18446744073709551615\n",
                    b"18446744073709551616\n",
                    b"../..\n",
                    b"\xff\xfe",
                    &garbage,
                ];
                let text = texts.choose(random).copied().unwrap_or_default();
                detail = format!("{:?}", text.get(..30).unwrap_or(text));
                fs::write(&current, text)?;
            }
            Damage::CurrentOther => {
                let other = random.random_range(0..100u64);
                detail = other.to_string();
                fs::write(&current, format!("{other}\n"))?;
            }
            Damage::CurrentDirectory => {
                fs::remove_file(&current)?;
                fs::create_dir(&current)?;
            }
            Damage::GenerationFile => {
                fs::remove_dir_all(&generation)?;
                fs::write(&generation, &garbage)?;
            }
            Damage::OlderGeneration | Damage::OfAnotherNode => {
                let (older, others) = &self.copies;
                let copy = if damage == Damage::OlderGeneration { older } else { others };
                fs::remove_dir_all(&generation)?;
                tree::copy(copy, &generation);
            }
            Damage::Unfinished => {
                let next = catalog.join("gen-4000000000");
                fs::create_dir(&next)?;
                fs::write(next.join("db"), &garbage)?;
                fs::write(catalog.join("COMPACTED"), &garbage)?;
                fs::write(catalog.join(".avalon-tmp-1-1"), &garbage)?;
            }
        }
        Ok(format!("{damage:?}, {detail}"))
    }
}

/// Returns where the catalog of a node that is stopped lies.
fn generation(node: &Daemon) -> Result<PathBuf, String> {
    let catalog = node.config.state_dir.join("catalog");
    let number = fs::read_to_string(catalog.join("CURRENT")).map_err(|error| error.to_string())?;
    let path = catalog.join(format!("gen-{}", number.trim_end()));
    if Path::is_dir(&path) { Ok(path) } else { Err(format!("{} is not there", path.display())) }
}
