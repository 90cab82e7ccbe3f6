//! What can be said for certain of two `match`es: that one follows from the other, or that they exclude each other.
//!
//! Both are sound and not complete: `false` means that nothing is known, so that no rule is refused by mistake.

use super::{
    criteria::{Criteria, Criterion, Field},
    glob::Glob,
};

impl Criteria {
    /// Says whether every version that matches this one certainly matches `wider` too, at every time.
    pub(super) fn implies(&self, wider: &Self) -> bool {
        wider.iter().all(|criterion| criterion.follows_from(self))
    }

    /// Says whether certainly no version matches both at the same time.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let ages = |a: &Self, b: &Self| {
            a.older_than.zip(b.younger_than).is_some_and(|(older, younger)| older >= younger)
        };
        let heroes = self.hero.zip(other.hero).is_some_and(|(a, b)| a != b);
        heroes || ages(self, other) || ages(other, self) || self.fields_exclude(other)
    }

    fn fields_exclude(&self, other: &Self) -> bool {
        // Of several families, one may match here and another one there.
        let single = self.fields.iter().filter(|(field, _)| field.is_at_most_one());
        let mut both =
            single.filter_map(|(field, globs)| other.fields.get(field).map(|others| (globs, others)));
        both.any(|(globs, others)| globs.iter().all(|a| others.iter().all(|b| a.is_apart_from(b))))
    }
}

impl Criterion<'_> {
    fn follows_from(&self, narrower: &Criteria) -> bool {
        match self {
            Self::Field(field, globs) => field_follows(field, globs, narrower.fields.get(field)),
            Self::Hero(wanted) => narrower.hero == Some(*wanted),
            // A hero is always among the latest.
            Self::Latest(count) => {
                narrower.hero == Some(true) || narrower.latest.is_some_and(|latest| latest <= *count)
            }
            Self::OlderThan(age) => narrower.older_than.is_some_and(|older| older >= *age),
            Self::YoungerThan(age) => narrower.younger_than.is_some_and(|younger| younger <= *age),
        }
    }
}

fn field_follows(field: &Field, globs: &[Glob], narrower: Option<&Vec<Glob>>) -> bool {
    match narrower {
        // One of the narrower patterns matches a value, so one of these matches the same value.
        Some(narrower) => narrower.iter().all(|narrow| globs.iter().any(|glob| glob.covers(narrow))),
        None => field.is_always_one() && globs.iter().any(Glob::matches_everything),
    }
}
