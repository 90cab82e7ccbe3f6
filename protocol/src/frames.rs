//! Some frames of a version: which, and in which order.
//!
//! What is fetched of a version by frames is described by manifests of parts of it, [`passes`]. They have the version's own
//! paths and objects, so that whatever fetches and places versions does so with parts of one. They are never published.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    id::RepresentationName,
    manifest::{InvalidManifest, Manifest, Representation},
    sequence::{FrameName, group},
};

/// The most ranges of a set.
pub const MAX_FRAME_RANGES: usize = 256;
/// The first pass has at most every 32nd frame: with fewer in each, most of the time would go into beginning and placing.
const COARSEST: u32 = 5;
/// Fewer frames come in one pass.
const FEW: usize = 8;

/// A set of frame numbers: `1001-1050x10,1100`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FrameSet(Vec<FrameRange>);

/// Frames from the first to the last, each `step`-th.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FrameRange {
    frames: RangeInclusive<u32>,
    step: u32,
}

/// What is wrong with a set as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidFrames {
    /// A part that is no range.
    #[error("{part:?} is no frames; write 1001, 1001-1050 or 1001-1050x10, several with commas")]
    Range {
        /// The part.
        part: String,
    },
    /// The end is before the beginning.
    #[error("{part:?} ends before it begins")]
    Backwards {
        /// The part.
        part: String,
    },
    /// More parts than anybody writes.
    #[error("these are more than {MAX_FRAME_RANGES} ranges of frames")]
    TooMany,
}

impl FromStr for FrameRange {
    type Err = InvalidFrames;

    fn from_str(part: &str) -> Result<Self, InvalidFrames> {
        let wrong = || InvalidFrames::Range { part: part.to_owned() };
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u32>().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        let (range, step) = match part.split_once('x') {
            Some((range, step)) if range.contains('-') => (range, number(step)?),
            Some(_) => return Err(wrong()),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        match (first <= last, step) {
            (_, 0) => Err(wrong()),
            (false, _) => Err(InvalidFrames::Backwards { part: part.to_owned() }),
            (true, step) => Ok(Self { frames: first..=last, step }),
        }
    }
}

impl FromStr for FrameSet {
    type Err = InvalidFrames;

    fn from_str(text: &str) -> Result<Self, InvalidFrames> {
        let ranges: Vec<FrameRange> =
            text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>()?;
        if ranges.len() > MAX_FRAME_RANGES {
            return Err(InvalidFrames::TooMany);
        }
        Ok(Self(ranges))
    }
}

impl TryFrom<String> for FrameSet {
    type Error = InvalidFrames;

    fn try_from(text: String) -> Result<Self, InvalidFrames> {
        text.parse()
    }
}

impl From<FrameSet> for String {
    fn from(set: FrameSet) -> Self {
        set.to_string()
    }
}

impl fmt::Display for FrameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, FrameRange { frames, step }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (first, last) = (frames.start(), frames.end());
            match (first == last, step) {
                (true, _) => write!(f, "{comma}{first}")?,
                (false, 1) => write!(f, "{comma}{first}-{last}")?,
                (false, step) => write!(f, "{comma}{first}-{last}x{step}")?,
            }
        }
        Ok(())
    }
}

impl FrameSet {
    /// Says whether a frame is in the set.
    pub fn contains(&self, frame: u32) -> bool {
        self.0.iter().any(|range| {
            range.frames.contains(&frame) && (frame - range.frames.start()).is_multiple_of(range.step)
        })
    }
}

/// What somebody wants of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameWish {
    /// The frames.
    pub frames: FrameSet,
    /// Of this representation; of all without one.
    pub representation: Option<RepresentationName>,
}

/// Why nothing of a version comes by frames.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoFrames {
    /// It has none of them.
    #[error("it has no frames {frames}; it has {}", if known.is_empty() { "no numbered files" } else { known })]
    None {
        /// What was wanted.
        frames: String,
        /// The sequences that it has, in short.
        known: String,
    },
    /// The part makes no manifest; that of the version does, so this is a bug.
    #[error("a part of the manifest is not usable")]
    Part(#[source] InvalidManifest),
}

/// Returns the parts of a version that have the frames that are wanted, in the order in which they should come: coarse to
/// fine, so that after each pass the frames that are here lie evenly over the range. Files without a frame number are in
/// none of them.
///
/// # Errors
/// [`NoFrames`].
pub fn passes(manifest: &Manifest, wish: &FrameWish) -> Result<Vec<Manifest>, NoFrames> {
    let mut chosen: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, file) in manifest.files().iter().enumerate() {
        let representation = manifest.representations().get(usize::from(file.representation));
        let is_meant = match (&wish.representation, representation) {
            (None, _) => true,
            (Some(wanted), of) => of.is_some_and(|of| of.name == *wanted),
        };
        if let Some(FrameName { frame, .. }) = FrameName::parse(file.path.as_str())
            && is_meant
            && wish.frames.contains(frame)
        {
            chosen.entry(frame).or_default().push(index);
        }
    }
    if chosen.is_empty() {
        let names = manifest.files().iter().map(|file| file.path.as_str());
        let known: Vec<String> = group(names).iter().take(4).map(ToString::to_string).collect();
        return Err(NoFrames::None { frames: wish.frames.to_string(), known: known.join(", ") });
    }
    let coarsest = match chosen.len() {
        few if few < FEW => 0,
        many => many.ilog2().saturating_sub(1).min(COARSEST),
    };
    let mut passes: Vec<Vec<usize>> = vec![Vec::new(); coarsest as usize + 1];
    for (number, (_, files)) in chosen.into_iter().enumerate() {
        // The first pass has every 32nd, the next what makes that every 16th, and so on.
        let pass = coarsest - number.trailing_zeros().min(coarsest);
        if let Some(pass) = passes.get_mut(pass as usize) {
            pass.extend(files);
        }
    }
    passes.iter().filter(|files| !files.is_empty()).map(|files| part(manifest, files)).collect()
}

/// Makes the manifest of some files of a version.
fn part(manifest: &Manifest, indexes: &[usize]) -> Result<Manifest, NoFrames> {
    let mut draft = manifest.draft().clone();
    let mut files: Vec<_> = indexes.iter().filter_map(|index| draft.files.get(*index).cloned()).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut representations: Vec<Representation> = Vec::new();
    let mut renumbered: BTreeMap<u16, u16> = BTreeMap::new();
    for (index, known) in (0u16..).zip(&draft.representations) {
        let mut own = files.iter().filter(|file| file.representation == index);
        let Some(first) = own.next() else { continue };
        let is_there = files.iter().any(|file| file.path.is_within(&known.entry));
        let entry = if is_there { known.entry.clone() } else { first.path.clone() };
        renumbered.insert(index, u16::try_from(representations.len()).unwrap_or(u16::MAX));
        representations.push(Representation { name: known.name.clone(), entry });
    }
    for file in &mut files {
        file.representation = renumbered.get(&file.representation).copied().unwrap_or_default();
    }
    (draft.files, draft.representations) = (files, representations);
    draft.finish().map_err(NoFrames::Part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hash::ObjectHash,
        manifest::{FileEntry, encode::tests::draft},
    };

    fn set(text: &str) -> FrameSet {
        text.parse().unwrap()
    }

    fn wish(frames: &str, representation: Option<&str>) -> FrameWish {
        FrameWish { frames: set(frames), representation: representation.map(|name| name.parse().unwrap()) }
    }

    /// Frames 1001 to 1100 of `exr`, the same of `jpg`, and a movie.
    fn render() -> Manifest {
        let mut draft = draft();
        let names = [("exr", "beauty.exr"), ("jpg", "beauty.1001.jpg"), ("mov", "beauty.mov")];
        draft.representations = names
            .iter()
            .map(|(name, entry)| Representation {
                name: name.parse().unwrap(),
                entry: entry.parse().unwrap(),
            })
            .collect();
        let file = |path: String, representation| FileEntry {
            hash: ObjectHash::of(path.as_bytes()),
            path: path.parse().unwrap(),
            size: 10,
            mtime_ns: 0,
            representation,
        };
        let frames = |form: fn(u32) -> String, representation| {
            (1001..=1100).map(move |frame| file(form(frame), representation))
        };
        draft.files = frames(|frame| format!("beauty.exr/beauty.{frame}.exr"), 0)
            .chain(frames(|frame| format!("beauty.{frame}.jpg"), 1))
            .chain([file("beauty.mov".into(), 2)])
            .collect();
        draft.finish().unwrap()
    }

    fn frames_of(manifest: &Manifest) -> Vec<u32> {
        manifest.files().iter().map(|file| FrameName::parse(file.path.as_str()).unwrap().frame).collect()
    }

    #[test]
    fn frames_are_written_as_people_write_them() {
        let tens = set("1001-1050x10, 1100");
        assert_eq!(tens.to_string(), "1001-1050x10,1100");
        let inside: Vec<u32> = (990..=1200).filter(|frame| tens.contains(*frame)).collect();
        assert_eq!(inside, [1001, 1011, 1021, 1031, 1041, 1100]);
        assert!(set("0-4294967295").contains(u32::MAX) && set("7").contains(7));
        for wrong in ["", "x", "1-", "-5", "1-5x0", "5x2", "1001-1050x", "+5", "1,,2", "99999999999", "1-2-3"]
        {
            assert!(matches!(wrong.parse::<FrameSet>(), Err(InvalidFrames::Range { .. })), "{wrong}");
        }
        assert!(matches!("1050-1001".parse::<FrameSet>(), Err(InvalidFrames::Backwards { .. })));
        let many = vec!["1"; 257].join(",");
        assert_eq!(many.parse::<FrameSet>(), Err(InvalidFrames::TooMany));
    }

    #[test]
    fn a_few_frames_of_one_representation_come_in_one_pass_and_nothing_else_does() {
        let parts = passes(&render(), &wish("1001-1050x10", Some("exr"))).unwrap();
        let [part] = parts.as_slice() else { panic!("{parts:?}") };
        assert_eq!(frames_of(part), [1001, 1011, 1021, 1031, 1041]);
        let names: Vec<String> = part.representations().iter().map(|known| known.name.to_string()).collect();
        assert_eq!((names, part.dir()), (vec!["exr".to_owned()], render().dir()));
    }

    #[test]
    fn many_frames_come_coarse_to_fine_and_each_once() {
        let parts = passes(&render(), &wish("1001-1100", Some("jpg"))).unwrap();
        assert_eq!(parts.len(), 6);
        assert_eq!(frames_of(&parts[0]), [1001, 1033, 1065, 1097]);
        assert_eq!(frames_of(&parts[1]), [1017, 1049, 1081]);
        let mut all: Vec<u32> = parts.iter().flat_map(frames_of).collect();
        let last = frames_of(&parts[5]);
        assert!(last.len() == 50 && last.iter().all(|frame| frame % 2 == 0), "{last:?}");
        all.sort_unstable();
        assert_eq!(all, (1001..=1100).collect::<Vec<u32>>());
        let entries = parts.iter().map(|part| part.representations()[0].entry.to_string());
        assert_eq!(entries.take(2).collect::<Vec<_>>(), ["beauty.1001.jpg", "beauty.1017.jpg"]);
    }

    #[test]
    fn what_has_no_such_frames_says_what_it_has() {
        let error = passes(&render(), &wish("1-100", None)).unwrap_err().to_string();
        assert!(error.starts_with("it has no frames 1-100; it has beauty.[1001-1100].jpg"), "{error}");
        assert!(passes(&render(), &wish("1001", Some("mov"))).is_err());
    }
}
