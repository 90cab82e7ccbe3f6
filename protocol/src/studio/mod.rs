//! What concerns the studio as a whole: the project whose feeds every node has, and what they say.
//!
//! The studio's own feeds are feeds like any other: signed, chained, passed on by whoever has them. They belong to a
//! reserved project that has no directory, so nothing in it is published, placed or dropped. What each kind of record
//! states where is decided by [`Record::in_feed`](crate::record::Record::in_feed) alone.

mod applied;
mod fold;

pub use self::{
    applied::{AppliedPolicy, PolicyTooLong},
    fold::{Entry, MAX_HISTORY, PolicyFold, PolicyId, Stands},
};
use crate::id::ProjectName;

/// The reserved project. No studio can have one of that name, in any case of its letters.
pub const STUDIO_PROJECT: &str = "_studio";

impl ProjectName {
    /// Returns the reserved project of the studio's own feeds.
    pub fn studio() -> Self {
        #[expect(clippy::expect_used, reason = "a constant; a test parses it")]
        STUDIO_PROJECT.parse().expect("the reserved name follows the rule for names")
    }

    /// Says whether it is the reserved project of the studio's own feeds.
    pub fn is_studio(&self) -> bool {
        self.as_str() == STUDIO_PROJECT
    }

    /// Says whether a studio must not call a project so: a file system that takes letters of either case for one would
    /// mix its feeds with the studio's own.
    pub fn is_reserved(&self) -> bool {
        self.as_str().eq_ignore_ascii_case(STUDIO_PROJECT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_name_is_a_name_and_no_other_case_of_it_is_free() {
        assert!(ProjectName::studio().is_studio() && ProjectName::studio().is_reserved());
        let other: ProjectName = "_Studio".parse().unwrap();
        assert!(!other.is_studio() && other.is_reserved());
        assert!(!"studio".parse::<ProjectName>().unwrap().is_reserved());
    }
}
