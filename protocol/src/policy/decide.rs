//! What a policy means for one version at one node, now.

use std::{fmt, sync::Arc};

use super::{
    document::Policy,
    facts::VersionFacts,
    places::Places,
    rule::{Keep, Rule, Urgency},
};
use crate::{id::NodeId, limit::Moment};

/// The time, as a number and on the wall clock of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970.
    pub ms: u64,
    /// The moment of the week where the node stands; windows are in that time.
    pub moment: Moment,
}

/// A rule by its name and the line on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRef {
    /// Its name.
    pub name: Arc<str>,
    /// Its line.
    pub line: u32,
}

impl From<&Rule> for RuleRef {
    fn from(rule: &Rule) -> Self {
        Self { name: Arc::clone(&rule.name), line: rule.line }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (line {})", self.name, self.line)
    }
}

/// How the rule that won names the node. A node that fetches only on demand by its own configuration keeps versions by
/// itself only when it is named itself: that a rule names its site is for the site's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// By its own name, in the rule or in a group.
    Node,
    /// With its site, with all sites, or not at all.
    Site,
}

/// What holds for a version at a node.
///
/// It prints as a line: `here, priority high, 2 copies`; what is as usual is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruling {
    /// What the node does.
    pub keep: Keep,
    /// The order within what comes by itself.
    pub urgency: Urgency,
    /// At how many different sites the version has to be; the same at every node.
    pub min_copies: u32,
    /// So many newest numbers of the subset, and its hero, are not removed here to make room; see [`Self::may_be_removed`].
    pub keep_last: Option<u32>,
    /// Whether its files are made read-only when they are placed.
    pub read_only: bool,
    /// Whether it may come by itself now; a pull does not wait for that.
    pub open_now: bool,
    /// How the node was named.
    pub named: Named,
    /// The rule that won at this node; `None` for the defaults.
    pub because: Option<RuleRef>,
    /// The rule that gives `min_copies`; `None` for the defaults.
    pub copies_because: Option<RuleRef>,
    /// When the ruling can be another by time alone, in milliseconds since 1970: an age that is reached, a window that opens
    /// or closes. It is never later than that, and may be earlier. `None`: only when something happens. It counts on hours of
    /// sixty minutes, so where windows are used look again after a change to or from summer time.
    pub next_change_ms: Option<u64>,
}

impl Ruling {
    /// Says whether the version may be removed here when room is needed, as far as this node is concerned; that
    /// `min_copies` stay elsewhere, and that nobody pinned or uses it, comes on top. What is kept here stays, unless `keep_last`
    /// lets older ones go; what is on demand may go, unless `keep_last` protects it. What goes by `keep_last` although it
    /// belongs here is not fetched again before there is room.
    pub fn may_be_removed(&self, facts: &VersionFacts<'_>) -> bool {
        let is_beyond = |last: u32| !facts.is_hero() && facts.rank >= last;
        match self.keep {
            Keep::Here => self.keep_last.is_some_and(is_beyond),
            Keep::OnDemand => self.keep_last.is_none_or(is_beyond),
            Keep::Never => true,
        }
    }
}

impl fmt::Display for Ruling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.keep)?;
        if !self.open_now {
            f.write_str(", not now")?;
        }
        if self.urgency != Urgency::Normal {
            write!(f, ", priority {}", self.urgency)?;
        }
        if self.min_copies > 1 {
            write!(f, ", {} copies", self.min_copies)?;
        }
        if let Some(last) = self.keep_last {
            write!(f, ", keeps the last {last}")?;
        }
        if self.read_only {
            f.write_str(", read-only")?;
        }
        Ok(())
    }
}

/// Nothing can be said yet: a rule asks for something that stands in the manifest, and the manifest has not come. Nothing is
/// fetched, refused or removed until it is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not known yet: rule {rule} asks for {fact}, which stands in the manifest, and that has not come")]
pub struct NotKnownYet {
    /// The first rule that asks for it.
    pub rule: RuleRef,
    /// What it asks for.
    pub fact: String,
}

impl Policy {
    /// Says what holds for a version at a node: the first rule that names the node and matches the version wins, whole. What it
    /// does not say, and what no rule says, is by the defaults. `min_copies` alone comes from the first rule that matches and
    /// says it, whatever nodes that rule names, so that all nodes agree on it.
    ///
    /// `when` does not take part in choosing the rule: outside its times the version still belongs here, and waits.
    ///
    /// # Errors
    /// [`NotKnownYet`] when a rule that could win, or could give `min_copies`, asks for something that is not known. It is
    /// never guessed; what is known can suffice to pass a rule by.
    pub fn decide(&self, node: &NodeId, facts: &VersionFacts<'_>, now: Now) -> Result<Ruling, NotKnownYet> {
        let mut next = NextChange::new(facts, now);
        let winner = self.first(facts, now, &mut next, |rule| rule.places.contains(node))?;
        let copies = self.first(facts, now, &mut next, |rule| rule.min_copies.is_some())?;
        let defaults = self.defaults();
        let when = winner.and_then(|rule| rule.when.as_ref());
        next.window(when.and_then(|when| when.minutes_until_change(now.moment)));
        Ok(Ruling {
            keep: winner.map_or(defaults.keep, |rule| rule.keep),
            urgency: winner.and_then(|rule| rule.urgency).unwrap_or(defaults.urgency),
            min_copies: copies.and_then(|rule| rule.min_copies).unwrap_or(defaults.min_copies),
            keep_last: winner.and_then(|rule| rule.keep_last).or(defaults.keep_last),
            read_only: winner.and_then(|rule| rule.read_only).unwrap_or(defaults.read_only),
            open_now: when.is_none_or(|when| when.is_open(now.moment)),
            named: winner.map_or(Named::Site, |rule| named(&rule.places, node)),
            because: winner.map(RuleRef::from),
            copies_because: copies.map(RuleRef::from),
            next_change_ms: next.at_ms,
        })
    }

    /// Returns the first rule of those that matches, and notes when that can change.
    fn first(
        &self,
        facts: &VersionFacts<'_>,
        now: Now,
        next: &mut NextChange<'_>,
        of: impl Fn(&Rule) -> bool,
    ) -> Result<Option<&Rule>, NotKnownYet> {
        for rule in self.rules().iter().filter(|rule| of(rule)) {
            next.ages(rule);
            match rule.criteria.matches(facts, now.ms) {
                Some(true) => return Ok(Some(rule)),
                Some(false) => {}
                None => return Err(not_known(rule, facts, now)),
            }
        }
        Ok(None)
    }
}

/// Names what a rule lacks.
pub(super) fn not_known(rule: &Rule, facts: &VersionFacts<'_>, now: Now) -> NotKnownYet {
    let lacking = rule.criteria.iter().find(|criterion| criterion.holds(facts, now.ms).is_none());
    let fact = lacking.map_or_else(String::new, |criterion| criterion.asks_for());
    NotKnownYet { rule: RuleRef::from(rule), fact }
}

fn named(places: &Places, node: &NodeId) -> Named {
    if places.nodes.contains(node) { Named::Node } else { Named::Site }
}

/// The earliest time at which something can change by itself.
struct NextChange<'f> {
    facts: &'f VersionFacts<'f>,
    now: Now,
    at_ms: Option<u64>,
}

impl<'f> NextChange<'f> {
    fn new(facts: &'f VersionFacts<'f>, now: Now) -> Self {
        Self { facts, now, at_ms: None }
    }

    /// Notes the ages at which a rule begins or ceases to match, unless it cannot match at any age.
    fn ages(&mut self, rule: &Rule) {
        if rule.criteria.matches_but_for_age(self.facts) {
            let times =
                rule.criteria.ages().map(|age| self.facts.published_at_ms.saturating_add(age.as_ms()));
            let next = times.filter(|time| *time > self.now.ms).min();
            self.at(next);
        }
    }

    /// Notes a window that opens or closes in so many minutes.
    fn window(&mut self, minutes: Option<u32>) {
        const MINUTE_MS: u64 = 60_000;
        let begun = self.now.ms % MINUTE_MS;
        self.at(minutes.map(|minutes| (self.now.ms - begun).saturating_add(u64::from(minutes) * MINUTE_MS)));
    }

    fn at(&mut self, time: Option<u64>) {
        self.at_ms = self.at_ms.into_iter().chain(time).min();
    }
}
