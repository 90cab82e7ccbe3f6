//! Makes a failing seed small: takes pieces of its story away, halves first, then single ones, as long as the same promise
//! breaks. What is left is named by the numbers of its pieces, which with the seed replay it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::{
    event_log::Recording,
    world::{self, Failure, Run},
};

/// How often a story is told at most before what is left counts as the smallest.
pub const MOST_RUNS: u32 = 2000;

/// The pieces of a story that are left; in text `0,3-5`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept(pub BTreeSet<usize>);

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut rest = self.0.iter().copied().peekable();
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |word: &str| {
            word.trim().parse::<usize>().map_err(|_| format!("`{word}` is no piece; write 0,3-5"))
        };
        let mut kept = BTreeSet::new();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            kept.extend(number(first)?..=number(last)?);
        }
        Ok(Self(kept))
    }
}

/// The smallest story that was found.
#[derive(Debug)]
pub struct Smallest {
    /// The run that tells it, with its pieces.
    pub run: Run,
    /// What breaks.
    pub failure: Box<Failure>,
    /// How often stories were told to find it.
    pub runs: u32,
}

/// Shrinks a run that fails; `None` when it does not fail.
pub fn shrink(run: &Run) -> Option<Smallest> {
    let first = world::tell(run, Recording::HashOnly).err()?;
    let mut smallest = Smallest { run: run.clone(), failure: first, runs: 1 };
    let invariant = smallest.failure.violation.invariant;
    let pieces: Vec<usize> = (0..run.scenario().pieces().len()).collect();
    let all = run.keep.as_ref().map_or(pieces, |kept| kept.0.iter().copied().collect());
    minimise(all, |pieces| {
        if smallest.runs >= MOST_RUNS {
            return false;
        }
        smallest.runs += 1;
        let run = Run { keep: Some(Kept(pieces.iter().copied().collect())), ..run.clone() };
        match world::tell(&run, Recording::HashOnly) {
            Err(failure) if failure.violation.invariant == invariant => {
                (smallest.run, smallest.failure) = (run, failure);
                true
            }
            _ => false,
        }
    });
    Some(smallest)
}

/// Takes away halves, quarters and so on down to single pieces, from the end, as long as `fails` says yes; single ones until
/// none can go.
fn minimise(mut pieces: Vec<usize>, mut fails: impl FnMut(&[usize]) -> bool) -> Vec<usize> {
    let mut size = pieces.len().div_ceil(2);
    while size > 0 && !pieces.is_empty() {
        let before = pieces.len();
        let mut end = pieces.len();
        while end > 0 {
            let start = end.saturating_sub(size);
            let fewer: Vec<usize> = pieces[..start].iter().chain(&pieces[end..]).copied().collect();
            if fails(&fewer) {
                pieces = fewer;
            }
            end = start;
        }
        size = if size > 1 { size.div_ceil(2) } else { usize::from(pieces.len() < before) };
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        for needed in [vec![], vec![0], vec![99], vec![3, 4, 50], vec![0, 7, 8, 98]] {
            let mut runs = 0;
            let left = minimise((0..100).collect(), |pieces| {
                runs += 1;
                needed.iter().all(|piece| pieces.contains(piece))
            });
            assert_eq!(left, needed);
            assert!(runs < 200, "{runs} runs");
        }
    }

    #[test]
    fn pieces_that_go_only_once_others_are_gone_go() {
        // Each piece but the first can go only when no later one is left.
        let left = minimise((0..20).collect(), |pieces| {
            let mut sorted = pieces.to_vec();
            sorted.dedup();
            pieces.contains(&0) && pieces.iter().zip(0..).all(|(piece, place)| *piece == place)
        });
        assert_eq!(left, [0]);
    }

    #[test]
    fn pieces_are_written_as_ranges_and_read_again() {
        for (text, pieces) in [("", vec![]), ("4", vec![4]), ("0,3-5,9", vec![0, 3, 4, 5, 9])] {
            let kept = Kept(pieces.into_iter().collect());
            assert_eq!(kept.to_string(), text);
            assert_eq!(text.parse::<Kept>().as_ref(), Ok(&kept));
        }
        assert!("3,x".parse::<Kept>().unwrap_err().contains("`x`"));
    }
}
