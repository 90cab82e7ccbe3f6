//! What a daemon takes at one moment, as the kernel and the file system say.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use avalon_protocol::control::{CatalogStatsReply, route};
use serde::Serialize;

use crate::daemons::{api::Api, config::NodeConfig, process::Log};

/// One node at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Sample {
    /// Which node, by its number.
    pub(super) node: usize,
    /// Which process of it: 0 before the first restart.
    pub(super) life: u32,
    /// Seconds since the soak began.
    pub(super) at: f64,
    /// Resident memory.
    pub(super) rss_bytes: u64,
    /// Of that, what belongs to no file.
    pub(super) anonymous_bytes: u64,
    /// Open descriptors.
    pub(super) descriptors: u64,
    /// Threads.
    pub(super) threads: u64,
    /// Lines of the log of all its processes.
    pub(super) log_lines: u64,
    /// Bytes of it.
    pub(super) log_bytes: u64,
    /// Its state directory.
    pub(super) state_bytes: u64,
    /// Of that, the catalog.
    pub(super) catalog_bytes: u64,
    /// What the catalog's rows take by themselves; 0 where it did not answer.
    pub(super) live_bytes: u64,
    /// Of the state directory, the feeds.
    pub(super) feed_bytes: u64,
}

/// A process that is looked at.
#[derive(Debug)]
struct Subject {
    config: NodeConfig,
    /// None while it is down.
    process: Option<(u32, Log)>,
    life: u32,
    /// How many lines of its current process were counted.
    counted: usize,
    log_lines: u64,
    log_bytes: u64,
    /// How often each message came in the minute that runs.
    minute: BTreeMap<String, u64>,
}

/// How often a message came in its worst minute, by node and message.
pub(super) type Messages = BTreeMap<(usize, String), u64>;

/// Looks at the daemons again and again in a thread of its own.
#[derive(Debug)]
pub(super) struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    subjects: Mutex<Vec<Subject>>,
    samples: Mutex<Vec<Sample>>,
    messages: Mutex<Messages>,
    /// Where they are kept, too.
    kept: Option<Mutex<File>>,
    minutes: AtomicU64,
    has_ended: AtomicBool,
}

impl Sampler {
    /// Begins to look at nodes, none of which it knows to be up.
    pub(super) fn start(configs: Vec<NodeConfig>, every: Duration, kept: Option<File>) -> Self {
        let subject = |config| Subject {
            config,
            process: None,
            life: 0,
            counted: 0,
            log_lines: 0,
            log_bytes: 0,
            minute: BTreeMap::new(),
        };
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            subjects: Mutex::new(configs.into_iter().map(subject).collect()),
            samples: Mutex::default(),
            messages: Mutex::default(),
            kept: kept.map(Mutex::new),
            minutes: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
        });
        let there = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !there.has_ended.load(Ordering::SeqCst) {
                thread::park_timeout(every);
                there.look();
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Takes note that a node's process runs.
    pub(super) fn is_up(&self, node: usize, pid: u32, log: Log) {
        let mut subjects = self.shared.subjects.lock().unwrap();
        subjects[node].process = Some((pid, log));
        subjects[node].counted = 0;
    }

    /// Takes note that it is about to end, after counting what it said.
    pub(super) fn is_down(&self, node: usize) {
        let mut subjects = self.shared.subjects.lock().unwrap();
        subjects[node].count_lines();
        subjects[node].process = None;
        subjects[node].life += 1;
    }

    /// Returns the newest sample of each node.
    pub(super) fn newest(&self) -> Vec<Sample> {
        let samples = self.shared.samples.lock().unwrap();
        let nodes = self.shared.subjects.lock().unwrap().len();
        let newest = |node| samples.iter().rev().find(|sample| sample.node == node).cloned();
        (0..nodes).map(|node| newest(node).unwrap_or_default()).collect()
    }

    /// Looks for the last time, and returns all that was seen.
    pub(super) fn stop(mut self) -> (Vec<Sample>, Messages) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("the sampler does not panic");
        }
        self.shared.end_minute();
        let samples = std::mem::take(&mut *self.shared.samples.lock().unwrap());
        let messages = std::mem::take(&mut *self.shared.messages.lock().unwrap());
        (samples, messages)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().ok();
        }
    }
}

impl Shared {
    fn look(&self) {
        let at = self.begun.elapsed();
        if at.as_secs() / 60 > self.minutes.load(Ordering::SeqCst) {
            self.end_minute();
            self.minutes.store(at.as_secs() / 60, Ordering::SeqCst);
        }
        let nodes = self.subjects.lock().unwrap().len();
        for node in 0..nodes {
            // The lock is not held while a daemon is asked: it may stand still.
            let Some((sample, config)) = self.process_of(node, at.as_secs_f64()) else { continue };
            let sample = with_state(sample, &config);
            if let Some(kept) = &self.kept {
                let line = serde_json::to_string(&sample).expect("plain data");
                writeln!(kept.lock().unwrap(), "{line}")
                    .unwrap_or_else(|error| eprintln!("a sample: {error}"));
            }
            self.samples.lock().unwrap().push(sample);
        }
    }

    fn process_of(&self, node: usize, at: f64) -> Option<(Sample, NodeConfig)> {
        let mut subjects = self.subjects.lock().unwrap();
        let subject = &mut subjects[node];
        subject.count_lines();
        let pid = subject.process.as_ref()?.0;
        let (rss_bytes, anonymous_bytes, threads) = memory(pid)?;
        let sample = Sample {
            node,
            life: subject.life,
            at,
            rss_bytes,
            anonymous_bytes,
            descriptors: descriptors(pid),
            threads,
            log_lines: subject.log_lines,
            log_bytes: subject.log_bytes,
            ..Sample::default()
        };
        Some((sample, subject.config.clone()))
    }

    fn end_minute(&self) {
        let mut subjects = self.subjects.lock().unwrap();
        let mut messages = self.messages.lock().unwrap();
        for (node, subject) in subjects.iter_mut().enumerate() {
            for (message, times) in std::mem::take(&mut subject.minute) {
                let most = messages.entry((node, message)).or_default();
                *most = times.max(*most);
            }
        }
    }
}

impl Subject {
    fn count_lines(&mut self) {
        let Some((_, log)) = &self.process else { return };
        for line in log.after(self.counted) {
            self.counted += 1;
            self.log_lines += 1;
            self.log_bytes += line.len() as u64 + 1;
            *self.minute.entry(message(&line)).or_default() += 1;
        }
    }
}

/// Returns what a line says without its time and its data, which differ from one line to the next.
pub(super) fn message(line: &str) -> String {
    let words = line.split_whitespace().skip(1);
    words.take_while(|word| !word.contains('=')).collect::<Vec<_>>().join(" ")
}

fn with_state(sample: Sample, config: &NodeConfig) -> Sample {
    let stats: Option<CatalogStatsReply> = Api::new(&config.socket).get(route::CATALOG_STATS).ok();
    let (catalog, feeds) = (config.state_dir.join("catalog"), config.state_dir.join("feeds"));
    Sample {
        state_bytes: bytes_in(&config.state_dir),
        catalog_bytes: bytes_in(&catalog),
        feed_bytes: bytes_in(&feeds),
        live_bytes: stats.map_or(0, |stats| stats.live_bytes),
        ..sample
    }
}

/// Returns resident memory, that of no file, and how many threads there are; nothing when the process has ended.
fn memory(pid: u32) -> Option<(u64, u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some((field("VmRSS:")? << 10, field("RssAnon:")? << 10, field("Threads:")?))
}

/// Counts the open descriptors of a process.
pub(super) fn descriptors(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().count() as u64
}

/// Adds up the room that files take beneath a directory, while they come and go.
fn bytes_in(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = walkdir::WalkDir::new(dir).into_iter().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}
