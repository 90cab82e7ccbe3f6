//! Finds the names in a path: components one after the other, each split tried until the whole path agrees.
//!
//! File names come from strangers. Every try costs a step, and the steps of one path are bounded: a name made to be
//! split in very many ways is simply not a publish.

use super::component::{Component, HERO, Hero, Key, Piece, Template};
use crate::id::VersionSlot;

/// More tries than any real path needs (a few dozen), few enough for some milliseconds.
const MAX_STEPS: u32 = 10_000;

/// The work area of Avalon's and OpenPype's templates, which is no part of a hierarchy.
const WORK: &str = "work";

/// What a path says.
#[derive(Debug, Clone, Default)]
pub(super) struct Bound<'t, 'p> {
    pub(super) slot: Option<VersionSlot>,
    /// The folders of the hierarchy, from the top.
    pub(super) hierarchy: &'p [&'p str],
    /// Numbers are without the zeros that their format fills up with.
    pub(super) values: Vec<(&'t Key, &'p str)>,
}

impl<'p> Bound<'_, 'p> {
    pub(super) fn get(&self, key: &Key) -> Option<&'p str> {
        self.values.iter().find(|(bound, _)| *bound == key).map(|(_, value)| *value)
    }
}

/// What the path at hand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of a version directory's path.
    Directory,
    /// The beginning of one, up to a slash.
    DirectoryBeginning,
    /// What follows the version directory.
    Inside,
}

/// Matches `parts` with the template, given what is `known` already.
pub(super) fn find<'t, 'p>(
    template: &'t Template,
    parts: &'p [&'p str],
    extent: Extent,
    known: Bound<'t, 'p>,
) -> Option<Bound<'t, 'p>> {
    let components = if extent == Extent::Inside { &template.inside } else { &template.directory };
    let mut matcher = Matcher { template, parts, extent, bound: known, steps_left: MAX_STEPS };
    matcher.components(components, 0).then_some(matcher.bound)
}

struct Matcher<'t, 'p> {
    template: &'t Template,
    parts: &'p [&'p str],
    extent: Extent,
    bound: Bound<'t, 'p>,
    steps_left: u32,
}

/// What comes after the pieces at hand.
enum Rest<'t, 'a> {
    /// Behind an optional part: the rest of the same component.
    Pieces(&'t [Piece], &'a Self),
    /// The end of the component, then others from the part of that index.
    Components(&'t [Component], usize),
}

// Each function says whether all that is left agrees. If not, what it has bound is taken back; a hierarchy is bound anew
// by every try.
impl<'t, 'p> Matcher<'t, 'p> {
    fn components(&mut self, components: &'t [Component], index: usize) -> bool {
        let Some((component, rest)) = components.split_first() else { return index == self.parts.len() };
        if component.is_hierarchy() {
            return self.hierarchy(rest, index);
        }
        let Some(part) = self.parts.get(index).copied() else {
            return self.extent == Extent::DirectoryBeginning;
        };
        let is_version_directory = component.holds_version() && self.extent != Extent::Inside;
        if is_version_directory && part == HERO && self.template.hero == Hero::Possible {
            // A second such directory must be `hero` as well, which a bound number cannot be.
            match self.bound.slot {
                Some(VersionSlot::Number(_)) => return false,
                Some(VersionSlot::Hero) => return self.components(rest, index + 1),
                None => return self.with_slot(VersionSlot::Hero, |m| m.components(rest, index + 1)),
            }
        }
        if is_version_directory && self.bound.slot == Some(VersionSlot::Hero) {
            return false;
        }
        self.pieces(&component.pieces, &Rest::Components(rest, index + 1), part)
    }

    /// Tries the fewest folders first, so that the outermost version directory is found.
    fn hierarchy(&mut self, rest: &'t [Component], index: usize) -> bool {
        let parts = self.parts;
        let folders = parts.get(index..).unwrap_or_default();
        let reserved = |part: &str| {
            part.starts_with('.') || part == WORK || self.template.literal_folders().any(|text| text == part)
        };
        let most = folders.iter().position(|part| reserved(part)).unwrap_or(folders.len());
        (0..=most).any(|count| {
            self.bound.hierarchy = folders.get(..count).unwrap_or_default();
            self.components(rest, index + count)
        })
    }

    fn pieces(&mut self, pieces: &'t [Piece], rest: &Rest<'t, '_>, text: &'p str) -> bool {
        let Some(steps_left) = self.steps_left.checked_sub(1) else { return false };
        self.steps_left = steps_left;
        let Some((piece, after)) = pieces.split_first() else {
            return match rest {
                Rest::Pieces(pieces, rest) => self.pieces(pieces, rest, text),
                Rest::Components(components, index) => text.is_empty() && self.components(components, *index),
            };
        };
        match piece {
            Piece::Literal(literal) => {
                text.strip_prefix(literal.as_str()).is_some_and(|text| self.pieces(after, rest, text))
            }
            Piece::Optional(optional) => {
                self.pieces(optional, &Rest::Pieces(after, rest), text) || self.pieces(after, rest, text)
            }
            Piece::Version { v, width } => match self.bound.slot {
                Some(slot) => {
                    let expected = version_text(slot, v, *width);
                    text.strip_prefix(expected.as_str()).is_some_and(|text| self.pieces(after, rest, text))
                }
                None => {
                    text.strip_prefix(v.as_str()).is_some_and(|text| self.version(*width, after, rest, text))
                }
            },
            Piece::Field { key, width } => match self.bound.get(key) {
                Some(value) => {
                    let expected = padded(value, *width);
                    text.strip_prefix(expected.as_str()).is_some_and(|text| self.pieces(after, rest, text))
                }
                None => self.field(key, *width, after, rest, text),
            },
        }
    }

    fn version(&mut self, width: usize, after: &'t [Piece], rest: &Rest<'t, '_>, text: &'p str) -> bool {
        digits_longest_first(text, width).any(|(digits, text)| match digits.parse() {
            Ok(number) if number <= VersionSlot::MAX_NUMBER && is_canonical(digits, width.max(1)) => {
                self.with_slot(VersionSlot::Number(number), |m| m.pieces(after, rest, text))
            }
            _ => false,
        })
    }

    fn field(
        &mut self,
        key: &'t Key,
        width: usize,
        after: &'t [Piece],
        rest: &Rest<'t, '_>,
        text: &'p str,
    ) -> bool {
        if matches!(key, Key::Number(_)) {
            return digits_longest_first(text, width).any(|(digits, text)| {
                let is_whole = width == 0 || is_canonical(digits, width);
                is_whole && self.with_value(key, unpadded(digits, width), |m| m.pieces(after, rest, text))
            });
        }
        // Looking at what must follow spares nearly all tries.
        let may_follow = |text: &str| match (after.first(), rest) {
            (Some(Piece::Literal(literal)), _) => text.starts_with(literal.as_str()),
            (None, Rest::Components(..)) => text.is_empty(),
            _ => true,
        };
        let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
        ends.filter_map(|end| text.split_at_checked(end)).any(|(value, text)| {
            may_follow(text)
                && key.accepts(value)
                && self.with_value(key, value, |m| m.pieces(after, rest, text))
        })
    }

    fn with_slot(&mut self, slot: VersionSlot, go_on: impl FnOnce(&mut Self) -> bool) -> bool {
        self.bound.slot = Some(slot);
        let agrees = go_on(self);
        if !agrees {
            self.bound.slot = None;
        }
        agrees
    }

    fn with_value(&mut self, key: &'t Key, value: &'p str, go_on: impl FnOnce(&mut Self) -> bool) -> bool {
        self.bound.values.push((key, value));
        let agrees = go_on(self);
        if !agrees {
            self.bound.values.pop();
        }
        agrees
    }
}

/// Writes a version as a file name holds it.
pub(super) fn version_text(slot: VersionSlot, v: &str, width: usize) -> String {
    match slot {
        VersionSlot::Number(number) => format!("{v}{number:0width$}"),
        VersionSlot::Hero => HERO.to_owned(),
    }
}

/// Fills digits up with zeros; any other text is not changed, as its width is 0.
pub(super) fn padded(value: &str, width: usize) -> String {
    format!("{value:0>width$}")
}

/// Takes away the zeros that a format has put in front.
pub(super) fn unpadded(digits: &str, width: usize) -> &str {
    let last = digits.len().saturating_sub(1);
    let zeros = digits.bytes().take(last).take_while(|b| *b == b'0').count();
    if width == 0 { digits } else { digits.get(zeros..).unwrap_or(digits) }
}

/// Says whether a number filled up to `width` is written so: any other spelling would be a second path for it.
fn is_canonical(digits: &str, width: usize) -> bool {
    digits.len() == width || digits.len() > width && !digits.starts_with('0')
}

/// Splits digits off the front, as many as there are first; the shortest has `width`.
fn digits_longest_first(text: &str, width: usize) -> impl Iterator<Item = (&str, &str)> {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    (width.max(1)..=count).rev().filter_map(|end| text.split_at_checked(end))
}
