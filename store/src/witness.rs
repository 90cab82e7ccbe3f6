//! The witness: what the files of this node's own feeds were like when it last had them, so that the next start sees
//! whether they are still the same files.
//!
//! Whoever restores a backup makes new files, or old ones with a new ctime, which no program can set. Segments that are written
//! to change theirs all the time; the anchor, a small file that is new with each witness, does not. A snapshot of the
//! whole volume, or of a virtual machine, leaves no sign; only peers know then. So this can say that a state was restored,
//! and never that it was not.

use std::{collections::BTreeMap, io::Read as _};

use avalon_protocol::{
    feed::FeedHead,
    id::{NodeId, ProjectName},
    own_feed::Signs,
};
use serde::{Deserialize, Serialize};

use crate::{
    error_chain::ErrorChain,
    feed::path_in,
    fs::{Dir, IoError, WriteMode, path_of},
    state_dir::StateDir,
};

const SCHEMA: &str = "avalond.witness/1";
/// Its file in the state directory.
pub(crate) const NAME: &str = "witness.json";
/// The anchor has one of these names, and the next one has the other.
const ANCHORS: [&str; 2] = ["witness-a.anchor", "witness-b.anchor"];
/// Far more than a thousand projects need.
const MAX_BYTES: u64 = 4 << 20;

/// When a witness is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// At a start: records follow.
    Start,
    /// At the end, when nothing follows: the files must be found unchanged.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
struct Witness {
    schema: String,
    moment: Moment,
    /// The inode of the directory that has the feeds.
    directory: u64,
    /// A file that is not written to as long as this witness stands; none in those of earlier builds.
    #[serde(default)]
    anchor: Option<Anchor>,
    feeds: BTreeMap<ProjectName, Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Anchor {
    name: String,
    inode: u64,
    ctime_ns: i64,
}

/// One feed of this node, and the last of its segments.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    records: u64,
    segment: String,
    inode: u64,
    ctime_ns: i64,
}

/// Compares the own feeds, which end at `heads`, with what this node had when it last ran. Blocks.
pub fn check(state: &StateDir, me: &NodeId, heads: &[(ProjectName, FeedHead)]) -> Signs {
    let is_empty = heads.iter().all(|(_, head)| head.next_seq == 0);
    let restored = |why: String| Signs::Restored { why };
    let witness = match read(&state.root) {
        Ok(Some(witness)) => witness,
        Ok(None) if is_empty => return Signs::New,
        Ok(None) => return restored(format!("{NAME} is not there")),
        Err(why) => return restored(why),
    };
    if directory(state).ok() != Some(witness.directory) {
        return restored("the directory of the feeds is another one than it was".to_owned());
    }
    if let Some(anchor) = &witness.anchor {
        match anchor_now(state, &anchor.name) {
            Ok(Some(now)) if now == *anchor => {}
            Ok(Some(_)) => return restored(format!("{} is another file than it was", anchor.name)),
            Ok(None) => return restored(format!("{} is gone", anchor.name)),
            Err(error) => return restored(ErrorChain(&error).to_string()),
        }
    }
    let signs = witness.feeds.iter().find_map(|(project, seen)| {
        let head = heads.iter().find(|(name, _)| name == project);
        let records = head.map_or(0, |(_, head)| head.next_seq);
        differs(state, me, (project, seen), records, witness.moment)
    });
    signs.map_or(Signs::None, restored)
}

fn differs(
    state: &StateDir,
    me: &NodeId,
    (project, seen): (&ProjectName, &Seen),
    records: u64,
    moment: Moment,
) -> Option<String> {
    if records < seen.records {
        return Some(format!("the feed about {project} has {records} records and had {}", seen.records));
    }
    let path = format!("{project}/{me}/{}", seen.segment);
    let stat = path.parse().ok().and_then(|path| state.feeds.stat(&path).ok().flatten());
    let Some(stat) = stat else { return Some(format!("{path} is gone")) };
    if stat.inode != seen.inode {
        return Some(format!("{path} is another file than it was"));
    }
    let is_at_rest = moment == Moment::Stop && records == seen.records;
    (is_at_rest && stat.ctime_ns != seen.ctime_ns)
        .then(|| format!("{path} was changed while the daemon was off"))
}

/// Notes what the files of the own feeds are like. Only where it is known that they are the newest. Blocks.
///
/// # Errors
/// What the system refuses; the old witness is there then.
pub fn write(
    state: &StateDir,
    me: &NodeId,
    heads: &[(ProjectName, FeedHead)],
    moment: Moment,
) -> Result<(), IoError> {
    let mut feeds = BTreeMap::new();
    for (project, head) in heads.iter().filter(|(_, head)| head.next_seq > 0) {
        let dir = path_in(&state.feeds, &format!("{project}/{me}"))?;
        let entries = state.feeds.list(Some(&dir))?;
        let names = entries.iter().map(|entry| entry.display_name().into_owned());
        let Some(segment) = names.filter(|name| name.ends_with(".alog")).max() else { continue };
        let stat = state.feeds.stat(&path_in(&state.feeds, &format!("{dir}/{segment}"))?)?;
        let Some(stat) = stat else { continue };
        let seen = Seen { records: head.next_seq, segment, inode: stat.inode, ctime_ns: stat.ctime_ns };
        feeds.insert(project.clone(), seen);
    }
    // The old one goes last, so that after a crash the witness that is there has its anchor. It does go: a backup that is put
    // back makes it anew then, also where files that look unchanged are passed over.
    let before =
        read(&state.root).ok().flatten().and_then(|witness| witness.anchor).map(|anchor| anchor.name);
    let [a, b] = ANCHORS;
    let (next, old) = if before.as_deref() == Some(a) { (b, a) } else { (a, b) };
    state.root.write_atomic(&path_of(next), b"see witness.json\n", WriteMode::Replace)?;
    let anchor = anchor_now(state, next)?;
    let witness = Witness { schema: SCHEMA.to_owned(), moment, directory: directory(state)?, anchor, feeds };
    let mut bytes = serde_json::to_vec_pretty(&witness)
        .map_err(|error| IoError::new("write", state.root.path().join(NAME), error))?;
    bytes.push(b'\n');
    state.root.write_atomic(&path_of(NAME), &bytes, WriteMode::Replace)?;
    match state.root.remove_file(&path_of(old)) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn anchor_now(state: &StateDir, name: &str) -> Result<Option<Anchor>, IoError> {
    let stat = match name.parse() {
        Ok(path) => state.root.stat(&path)?,
        Err(_) => None,
    };
    Ok(stat.map(|stat| Anchor { name: name.to_owned(), inode: stat.inode, ctime_ns: stat.ctime_ns }))
}

fn directory(state: &StateDir) -> Result<u64, IoError> {
    let stat = state.root.stat(&path_of("feeds"))?;
    Ok(stat.map_or(0, |stat| stat.inode))
}

/// Returns how many records the own feeds had when they were noted last; nothing of any where they never were. Why it is of no use is said
/// in words.
pub(crate) fn known_records(root: &Dir) -> Result<BTreeMap<ProjectName, u64>, String> {
    let feeds = read(root)?.map(|witness| witness.feeds).unwrap_or_default();
    Ok(feeds.into_iter().map(|(project, seen)| (project, seen.records)).collect())
}

/// Returns the witness; none where there is none, and why where it is of no use.
fn read(root: &Dir) -> Result<Option<Witness>, String> {
    let file = match root.open_file(&path_of(NAME)) {
        Err(error) if error.is_not_found() => return Ok(None),
        opened => opened.map_err(|error| ErrorChain(&error).to_string())?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{NAME} cannot be read: {error}"))?;
    let witness: Witness =
        serde_json::from_slice(&bytes).map_err(|error| format!("{NAME} is damaged: {error}"))?;
    if witness.schema == SCHEMA { Ok(Some(witness)) } else { Err(format!("{NAME} is of another version")) }
}

#[cfg(test)]
mod tests;
