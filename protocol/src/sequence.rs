//! Numbered files: rendered frames, caches and texture tiles that are one thing in many files.
//!
//! A missing frame is a reason not to call a version whole, so the two mistakes here have a price. A gap that is not
//! seen lets a version out early; its later frames follow as growth, which is normal. A gap that is not there holds a
//! version back until the files have been quiet for long enough. Neither loses anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// The name of one numbered file, taken apart: `beauty.` + 1001 + `.exr`.
///
/// Which digits are the frame number, looking from the end of the name, its extension left out:
/// - digits that end the name and follow `.`, `_` or `-`, of any length: `fx_42.vdb`, `beauty.1001.exr`;
/// - three digits or more that end the name: `img0001.png`;
/// - three digits or more between two of `.`, `_` and `-`: `beauty.1001.left.exr`, `fx.0042.bgeo.sc`.
///
/// A version (`v001`) is never a frame number, nor are more than nine digits. So `sh010_v001.1001.exr` is frame 1001
/// and `sh010_v001.abc` is not numbered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FrameName {
    /// The text before the number; with the directory, when a path was taken apart.
    pub prefix: String,
    /// The number.
    pub frame: u32,
    /// How many digits the number is written with, leading zeros included.
    pub padding: usize,
    /// The text after the number, extension included.
    pub suffix: String,
}

impl FrameName {
    /// Takes a file name, or a path joined by `/`, apart; `None` when it has no frame number.
    pub fn parse(name: &str) -> Option<Self> {
        let Split { prefix, digits, suffix } = split(name)?;
        let frame = digits.parse().ok()?;
        Some(Self { prefix: prefix.to_owned(), frame, padding: digits.len(), suffix: suffix.to_owned() })
    }
}

impl fmt::Display for FrameName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, frame, padding, suffix } = self;
        write!(f, "{prefix}{frame:0padding$}{suffix}")
    }
}

/// Files that differ by their frame number alone, at least one.
///
/// `Display` is short and for people: `beauty.[1001-1010,1015].exr`, on twos `beauty.[1001-1021x2].exr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The text before the number.
    pub prefix: String,
    /// The number of digits that the numbers are filled up to with zeros.
    pub padding: usize,
    /// The text after the number.
    pub suffix: String,
    /// The numbers, ascending, each once.
    pub frames: Vec<u32>,
}

/// Groups names into sequences, sorted by name; names without a frame number are left out.
///
/// A lone numbered file is a sequence of one. `9`, `10` and `11` are one sequence, `0009` and `9` are not.
/// Time is n log n in the number of names.
pub fn group<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Sequence> {
    let mut alike: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for name in names {
        if let Some(Split { prefix, digits, suffix }) = split(name) {
            alike.entry((prefix, suffix)).or_default().push(digits);
        }
    }
    let mut sequences = Vec::new();
    for ((prefix, suffix), numbers) in alike {
        for (padding, frames) in by_padding(&numbers) {
            let frames = frames.into_iter().collect();
            sequences.push(Sequence {
                prefix: prefix.to_owned(),
                padding,
                suffix: suffix.to_owned(),
                frames,
            });
        }
    }
    sequences
}

/// Tells apart numbers that are filled up to different widths.
///
/// A leading zero shows the width. A number without one belongs to the greatest width that is not longer than it
/// (`1000` goes with `0999`), and when there is none it was not filled up at all.
fn by_padding(numbers: &[&str]) -> BTreeMap<usize, BTreeSet<u32>> {
    let is_filled = |digits: &&&str| digits.len() > 1 && digits.starts_with('0');
    let widths: BTreeSet<usize> = numbers.iter().filter(is_filled).map(|digits| digits.len()).collect();
    let shortest_plain = numbers.iter().filter(|d| !is_filled(d)).map(|d| d.len()).min().unwrap_or(1);
    let mut groups: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
    for digits in numbers {
        let width = match widths.range(..=digits.len()).next_back() {
            Some(width) => *width,
            None => shortest_plain,
        };
        if let Ok(frame) = digits.parse() {
            groups.entry(width).or_default().insert(frame);
        }
    }
    groups
}

impl Sequence {
    /// The most frames that [`Self::missing`] names: two stray numbers must not cost gigabytes.
    pub const MAX_MISSING: usize = 100_000;
    /// The most runs that `Display` writes before it says how many frames follow.
    const MAX_RUNS_SHOWN: usize = 64;

    /// Returns the distance between frames: the most common one, and among equally common ones the smallest.
    pub fn step(&self) -> u32 {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for distance in self.distances() {
            *counts.entry(distance).or_default() += 1;
        }
        let most_common =
            counts.into_iter().max_by_key(|(distance, count)| (*count, std::cmp::Reverse(*distance)));
        most_common.map_or(1, |(distance, _)| distance.max(1))
    }

    /// Returns the frames that are not there between the first and the last, up to [`Self::MAX_MISSING`].
    ///
    /// A render on twos or tens misses nothing, nor do UDIM tiles. A frame missing before the first or after the last
    /// cannot be seen from the names.
    pub fn missing(&self) -> Vec<u32> {
        if self.is_udim() {
            return Vec::new();
        }
        let step = self.step();
        let holes = self.frames.iter().zip(self.frames.iter().skip(1)).flat_map(|(before, after)| {
            let first = before.saturating_add(step);
            (first..*after).step_by(step as usize)
        });
        holes.take(Self::MAX_MISSING).collect()
    }

    /// Says whether the numbers are UDIM tiles with unused tiles between them, rather than frames with a gap.
    ///
    /// UDIM numbers tiles from 1001 in rows of ten: 1001 to 1010, then 1011. A layout leaves the end of a row unused,
    /// which looks like a gap (1001, 1002, 1011, 1012). The rule: four digits, all within 1001 to 1999, at least one gap,
    /// every run begins at the start of a row, and none fills its row. A run of ten or more is what a render makes, so
    /// 1001-1010,1021-1024 is a gap.
    ///
    /// Limits: a render in chunks of fewer than ten that begin at 1001, 1011, 1021 looks like tiles while it runs; tiles
    /// that leave out the start of a row look like frames.
    pub fn is_udim(&self) -> bool {
        let in_range = |frame: &u32| (1001..=1999).contains(frame);
        if self.padding != 4 || !self.frames.iter().all(in_range) {
            return false;
        }
        let runs = self.runs(1);
        runs.len() > 1
            && runs.iter().all(|run| (run.first - 1001).is_multiple_of(10) && run.last - run.first < 9)
    }

    fn distances(&self) -> impl Iterator<Item = u32> {
        self.frames
            .iter()
            .zip(self.frames.iter().skip(1))
            .map(|(before, after)| after.saturating_sub(*before))
    }

    /// Splits the frames where the distance to the next is not `step`.
    fn runs(&self, step: u32) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for &frame in &self.frames {
            match runs.last_mut() {
                Some(run) if frame.checked_sub(run.last) == Some(step) => {
                    run.last = frame;
                    run.count += 1;
                }
                _ => runs.push(Run { first: frame, last: frame, count: 1 }),
            }
        }
        runs
    }
}

struct Run {
    first: u32,
    last: u32,
    count: usize,
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, padding, suffix, frames } = self;
        if let [frame] = frames.as_slice() {
            return write!(f, "{prefix}{frame:0padding$}{suffix}");
        }
        // Tiles count in ones, even when the most common distance is that between rows.
        let step = if self.is_udim() { 1 } else { self.step() };
        let runs = self.runs(step);
        write!(f, "{prefix}[")?;
        for (index, run) in runs.iter().take(Self::MAX_RUNS_SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let Run { first, last, count } = run;
            match (count, step) {
                (1, _) => write!(f, "{comma}{first:0padding$}")?,
                (_, 1) => write!(f, "{comma}{first:0padding$}-{last:0padding$}")?,
                (2, _) => write!(f, "{comma}{first:0padding$},{last:0padding$}")?,
                _ => write!(f, "{comma}{first:0padding$}-{last:0padding$}x{step}")?,
            }
        }
        let hidden: usize = runs.iter().skip(Self::MAX_RUNS_SHOWN).map(|run| run.count).sum();
        if hidden > 0 {
            write!(f, ", and {hidden} more")?;
        }
        write!(f, "]{suffix}")
    }
}

/// A name cut at its frame number.
struct Split<'a> {
    prefix: &'a str,
    digits: &'a str,
    suffix: &'a str,
}

/// Nine digits always fit a `u32`; longer ones are dates with a time, or hashes.
const MAX_DIGITS: usize = 9;

/// Finds the frame number by the rule of [`FrameName`].
fn split(path: &str) -> Option<Split<'_>> {
    let (directory, name) = match path.rsplit_once('/') {
        Some((directory, name)) => (directory.len() + 1, name),
        None => (0, path),
    };
    let stem = stem(name);
    let mut rest = stem;
    loop {
        let end = rest.rfind(|c: char| c.is_ascii_digit())? + 1;
        let before = rest.get(..end)?.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = rest.get(before.len()..end)?;
        let after = name.get(end..)?;
        let follows = if end == stem.len() { AfterDigits::Extension } else { AfterDigits::Text(after) };
        if is_frame_number(before, digits, follows) {
            return Some(Split { prefix: path.get(..directory + before.len())?, digits, suffix: after });
        }
        rest = before;
    }
}

/// Leaves the extension out: letters and digits after the last dot, at least one of them a letter.
fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, extension))
            if extension.chars().all(char::is_alphanumeric) && extension.contains(char::is_alphabetic) =>
        {
            stem
        }
        _ => name,
    }
}

/// What follows a group of digits.
enum AfterDigits<'a> {
    Extension,
    Text(&'a str),
}

fn is_frame_number(before: &str, digits: &str, after: AfterDigits<'_>) -> bool {
    const SEPARATORS: [char; 3] = ['.', '_', '-'];
    let is_separated = before.is_empty() || before.ends_with(SEPARATORS);
    let is_version = before
        .strip_suffix(['v', 'V'])
        .is_some_and(|before_v| before_v.is_empty() || !before_v.ends_with(char::is_alphanumeric));
    if is_version || digits.len() > MAX_DIGITS {
        return false;
    }
    match after {
        AfterDigits::Extension => is_separated || digits.len() >= 3,
        AfterDigits::Text(text) => is_separated && digits.len() >= 3 && text.starts_with(SEPARATORS),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(numbers: impl IntoIterator<Item = u32>) -> Sequence {
        let names: Vec<String> = numbers.into_iter().map(|n| format!("beauty.{n:04}.exr")).collect();
        let mut sequences = group(names.iter().map(String::as_str));
        assert_eq!(sequences.len(), 1);
        sequences.remove(0)
    }

    #[test]
    fn frame_number_is_found_where_studios_write_it() {
        for (name, prefix, frame, padding, suffix) in [
            ("beauty.1001.exr", "beauty.", 1001, 4, ".exr"),
            ("sh010_v001.1001.exr", "sh010_v001.", 1001, 4, ".exr"),
            ("robot_diffuse.1001.exr", "robot_diffuse.", 1001, 4, ".exr"),
            ("fx_0042.vdb", "fx_", 42, 4, ".vdb"),
            ("fx_7.vdb", "fx_", 7, 1, ".vdb"),
            ("img0001.png", "img", 1, 4, ".png"),
            ("beauty.1001.left.exr", "beauty.", 1001, 4, ".left.exr"),
            ("fx.0042.bgeo.sc", "fx.", 42, 4, ".bgeo.sc"),
            ("1001.exr", "", 1001, 4, ".exr"),
            ("beauty.1001", "beauty.", 1001, 4, ""),
            ("beauty.exr/beauty.1001.exr", "beauty.exr/beauty.", 1001, 4, ".exr"),
            ("shot_1001.mp4", "shot_", 1001, 4, ".mp4"),
        ] {
            let found = FrameName::parse(name).unwrap_or_else(|| panic!("{name}"));
            let expected = FrameName { prefix: prefix.into(), frame, padding, suffix: suffix.into() };
            assert_eq!(found, expected);
            assert_eq!(found.to_string(), name);
        }
    }

    #[test]
    fn versions_shots_and_dates_are_not_frames() {
        for name in [
            "modelDefault.abc",
            "sh010_v001.abc",
            "v001.ma",
            "sh010_camera.abc",
            "robot2.ma",
            "sh010/rig.ma",
            "bake_20170510090203.json",
            "clip.mp4",
            "",
            ".exr",
        ] {
            assert_eq!(FrameName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn sequences_are_told_apart_by_name_and_padding_and_shown_short() {
        let names = [
            "beauty.1003.exr",
            "beauty.1001.exr",
            "beauty.1002.exr",
            "beauty.1002.exr",
            "modelDefault.abc",
            "fx_9.vdb",
            "fx_10.vdb",
            "fx_11.vdb",
            "depth.0999.exr",
            "depth.1000.exr",
            "depth.1.exr",
            "still.0101.png",
        ];
        let shown: Vec<String> = group(names).iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "beauty.[1001-1003].exr",
                "depth.1.exr",
                "depth.[0999-1000].exr",
                "fx_[9-11].vdb",
                "still.0101.png"
            ]
        );
    }

    #[test]
    fn gaps_and_steps_are_shown() {
        for (numbers, shown) in [
            ((1001..=1240).collect::<Vec<u32>>(), "beauty.[1001-1240].exr"),
            ((1001..=1010).chain([1015]).collect(), "beauty.[1001-1010,1015].exr"),
            ((1001..=1021).step_by(2).collect(), "beauty.[1001-1021x2].exr"),
            (vec![1001, 1003, 1005, 1009, 1011], "beauty.[1001-1005x2,1009,1011].exr"),
            (vec![8, 9, 10], "beauty.[0008-0010].exr"),
            (vec![1001, 1002, 1011, 1012], "beauty.[1001-1002,1011-1012].exr"),
        ] {
            assert_eq!(frames(numbers).to_string(), shown);
        }
        let scattered = frames((0..200).map(|n| n * n)).to_string();
        assert!(scattered.ends_with(", and 135 more].exr"), "{scattered}");
    }

    #[test]
    fn a_render_on_twos_misses_nothing_and_a_hole_in_it_is_one_frame() {
        assert!(frames((1001..=1021).step_by(2)).missing().is_empty());
        assert_eq!(frames((1001..=1021).step_by(2).filter(|n| *n != 1011)).missing(), [1011]);
        assert!(frames([1001, 1100]).missing().is_empty());
        assert!(frames([1001]).missing().is_empty());
    }

    #[test]
    fn a_hole_in_a_render_is_missing() {
        let lantern_v002 = frames((1001..=1024).filter(|n| !(1013..=1014).contains(n)));
        assert!(!lantern_v002.is_udim());
        assert_eq!(lantern_v002.missing(), [1013, 1014]);
        // The second part begins where a row of tiles would; the first is too long for a row with an unused end.
        let chunk_lost = frames((1001..=1010).chain(1021..=1024));
        assert_eq!(chunk_lost.missing(), (1011..=1020).collect::<Vec<_>>());
        assert_eq!(frames([101, 102, 111, 112]).missing().len(), 8);
        assert_eq!(frames([2001, 2002, 2011, 2012]).missing().len(), 8);
    }

    #[test]
    fn udim_tiles_have_no_gaps() {
        let names = ["diffuse", "normal", "spec"]
            .map(|map| [1001, 1002, 1011, 1012].map(|tile| format!("robot_{map}.{tile}.exr")));
        let textures = group(names.iter().flatten().map(String::as_str));
        assert_eq!(textures.len(), 3);
        for texture in textures {
            assert!(texture.is_udim());
            assert_eq!(texture.missing(), [0; 0], "{texture}");
        }
        assert!(frames([1001, 1002, 1003, 1011, 1021, 1022]).missing().is_empty());
        assert!(frames([1001, 1011, 1021]).missing().is_empty());
        assert!(frames((1001..=1010).chain(1011..=1013)).missing().is_empty());
    }

    #[test]
    fn two_stray_numbers_do_not_cost_gigabytes() {
        assert_eq!(frames([1, 2, 999_999_999]).missing().len(), Sequence::MAX_MISSING);
    }

    #[test]
    fn a_hundred_thousand_frames_are_grouped_in_one_pass() {
        let whole = frames((0..100_000).rev());
        assert_eq!(whole.frames.len(), 100_000);
        assert_eq!(whole.to_string(), "beauty.[0000-99999].exr");
        assert_eq!(frames((0..=100_000).filter(|n| n % 3 != 0 || *n == 0)).missing().len(), 33_333);
    }

    proptest! {
        #[test]
        fn group_puts_every_numbered_name_in_one_sequence_and_writes_it_back(
            names in prop::collection::btree_set("[ab]{0,2}[._]?[01v9]{0,4}[._]?(exr|1)?", 0..24)
        ) {
            let numbered: BTreeSet<String> =
                names.iter().filter(|name| FrameName::parse(name).is_some()).cloned().collect();
            let mut written = BTreeSet::new();
            for Sequence { prefix, padding, suffix, frames } in group(names.iter().map(String::as_str)) {
                for frame in frames {
                    let name = format!("{prefix}{frame:0padding$}{suffix}");
                    prop_assert!(written.insert(name));
                }
            }
            prop_assert_eq!(written, numbered);
        }

        #[test]
        fn frames_and_missing_frames_are_disjoint_and_lie_between_first_and_last(
            numbers in prop::collection::btree_set(0..3000_u32, 1..40)
        ) {
            let sequence = frames(numbers.iter().copied());
            let (first, last) = (*numbers.first().unwrap(), *numbers.last().unwrap());
            for frame in sequence.missing() {
                prop_assert!(first < frame && frame < last && !numbers.contains(&frame));
            }
        }
    }
}
