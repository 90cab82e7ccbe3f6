//! What one seed means: the studio, what its people do in the year and what breaks, all chosen before the first step.

use std::collections::BTreeMap;

use avalon_protocol::{
    id::{VersionId, VersionSlot},
    mode::ProjectMode,
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::{
    book::{Book, NodePlan, VersionIndex, VersionPlan},
    event::{Deed, Event, Fault},
    policies,
};

/// A minute in milliseconds.
pub const MINUTE: u64 = 60_000;
/// An hour.
pub const HOUR: u64 = 60 * MINUTE;
/// A day.
pub const DAY: u64 = 24 * HOUR;
/// When the year is over and nothing breaks any more.
pub const END: u64 = 364 * DAY;
/// How far ahead a clock may be, at most.
pub const MAX_AHEAD: u64 = 2 * DAY;

const SITES: [&str; 6] = ["london", "montreal", "home-anna", "archive", "farm", "seoul"];
const ASSETS: [&str; 4] = ["robot", "cave", "robotArm", "sh010"];
const SUBSETS: [&str; 2] = ["modelMain", "rigMain"];
const FAMILIES: [&str; 3] = ["rig", "model", "render"];
const AUTHORS: [&str; 2] = ["anna", "ben"];

/// The studio and its year.
#[derive(Debug)]
pub struct Script {
    /// Nodes, versions and policies.
    pub book: Book,
    /// Deeds and faults with their times.
    pub agenda: Vec<(u64, Event)>,
}

impl Script {
    /// Draws a studio and its year.
    pub fn draw(dice: &mut ChaCha8Rng) -> Self {
        let mut book = Book { sites: dice.random_range(3..=6), ..Book::default() };
        nodes(dice, &mut book);
        versions(dice, &mut book);
        policies::draw(dice, &mut book);
        let mut writer = Writer { dice, book, agenda: Vec::new() };
        writer.publishes();
        writer.policies();
        writer.people();
        writer.races();
        writer.cuts();
        writer.damage();
        writer.at(END, Event::Fault(Fault::End));
        Self { book: writer.book, agenda: writer.agenda }
    }
}

fn nodes(dice: &mut ChaCha8Rng, book: &mut Book) {
    for (site, site_name) in SITES.iter().enumerate().take(book.sites) {
        for number in 0..if dice.random_bool(0.3) { 2 } else { 1 } {
            // The first node of a site mostly keeps for it, others mostly are workstations.
            let keeps = dice.random_bool(if number == 0 { 0.8 } else { 0.2 });
            let name = if number == 0 { "srv" } else { "ws" };
            book.nodes.push(NodePlan {
                id: format!("{name}{number}@{site_name}").parse().expect("a made-up name"),
                site,
                mode: if keeps { ProjectMode::Mirror } else { ProjectMode::OnDemand },
                quota_bytes: dice.random_bool(0.6).then(|| dice.random_range(200..1200)),
                ahead_ms: if dice.random_bool(0.3) { dice.random_range(0..MAX_AHEAD) } else { MAX_AHEAD / 2 },
            });
        }
    }
}

fn versions(dice: &mut ChaCha8Rng, book: &mut Book) {
    let subsets = dice.random_range(2..=5);
    for subset in 0..subsets {
        let (asset, name) = (ASSETS[subset % ASSETS.len()], SUBSETS[subset / ASSETS.len()]);
        let family = FAMILIES[dice.random_range(0..FAMILIES.len())];
        for number in 1..=dice.random_range(2..=6) {
            book.versions.push(VersionPlan {
                id: VersionId {
                    project: "lantern".parse().expect("a name"),
                    asset: asset.parse().expect("a name"),
                    subset: name.parse().expect("a name"),
                    slot: VersionSlot::Number(number),
                },
                subset,
                metadata: BTreeMap::from([("family".to_owned(), family.to_owned())]),
                author: AUTHORS[dice.random_range(0..AUTHORS.len())],
            });
        }
    }
}

struct Writer<'a> {
    dice: &'a mut ChaCha8Rng,
    book: Book,
    agenda: Vec<(u64, Event)>,
}

impl Writer<'_> {
    fn at(&mut self, at_ms: u64, event: Event) {
        self.agenda.push((at_ms.min(END), event));
    }

    fn deed(&mut self, at_ms: u64, node: usize, deed: Deed) {
        self.at(at_ms, Event::Deed(node, deed));
    }

    fn some_node(&mut self) -> usize {
        self.dice.random_range(0..self.book.nodes.len())
    }

    fn some_version(&mut self) -> VersionIndex {
        self.dice.random_range(0..self.book.versions.len())
    }

    fn some_time(&mut self) -> u64 {
        self.dice.random_range(DAY..END - DAY)
    }

    /// Versions are saved, and found whole a while after; some are never published, some grow.
    fn publishes(&mut self) {
        let count = self.book.versions.len();
        let mut times: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for version in 0..count {
            let at_ms = self.some_time();
            times.entry(self.book.versions[version].subset).or_default().push(at_ms);
        }
        times.values_mut().for_each(|times| times.sort_unstable_by(|a, b| b.cmp(a)));
        for version in 0..count {
            let at_ms = times.get_mut(&self.book.versions[version].subset).and_then(Vec::pop);
            let at_ms = at_ms.expect("one was drawn for each");
            let node = self.some_node();
            self.save(at_ms, node, version);
            if self.dice.random_bool(0.05) {
                let other = self.some_node();
                let later_ms = at_ms + self.dice.random_range(0..HOUR);
                self.save(later_ms, other, version);
            }
            for _ in 0..2 {
                if self.dice.random_bool(0.15) {
                    let grown_ms = at_ms + self.dice.random_range(HOUR..60 * DAY);
                    self.save(grown_ms, node, version);
                }
            }
        }
    }

    fn save(&mut self, at_ms: u64, node: usize, version: VersionIndex) {
        self.deed(at_ms, node, Deed::Save(version));
        if self.dice.random_bool(0.9) {
            let settled_ms = at_ms + self.dice.random_range(MINUTE..DAY);
            self.deed(settled_ms, node, Deed::Settle(version));
        }
    }

    fn policies(&mut self) {
        let mut at_ms = self.dice.random_range(0..20 * DAY);
        for policy in 0..self.book.policies.len() {
            let node = self.some_node();
            self.deed(at_ms, node, Deed::Apply(policy));
            if self.dice.random_bool(0.15) {
                // Somebody else does so at about the same time.
                let (node, other) = (self.some_node(), self.dice.random_range(0..self.book.policies.len()));
                let moment = at_ms + self.dice.random_range(0..MINUTE);
                self.deed(moment, node, Deed::Apply(other));
            }
            at_ms += self.dice.random_range(5 * DAY..80 * DAY);
        }
    }

    fn people(&mut self) {
        for _ in 0..self.dice.random_range(15..40) {
            let (at_ms, node, version) = (self.some_time(), self.some_node(), self.some_version());
            self.deed(at_ms, node, Deed::Pull(version));
        }
        for _ in 0..self.dice.random_range(5..15) {
            let (at_ms, node, version) = (self.some_time(), self.some_node(), self.some_version());
            self.deed(at_ms, node, Deed::Drop(version));
        }
        for _ in 0..self.dice.random_range(3..8) {
            let (at_ms, node, version) = (self.some_time(), self.some_node(), self.some_version());
            self.deed(at_ms, node, Deed::Pin(version));
            if self.dice.random_bool(0.5) {
                let until_ms = at_ms + self.dice.random_range(DAY..100 * DAY);
                self.deed(until_ms, node, Deed::Unpin(version));
            }
        }
    }

    /// All who hold a version drop it at once, and things happen in that moment.
    fn races(&mut self) {
        for _ in 0..self.dice.random_range(6..14) {
            let (at_ms, version) = (self.some_time(), self.some_version());
            for node in 0..self.book.nodes.len() {
                if self.dice.random_bool(0.7) {
                    let pulled_ms = at_ms.saturating_sub(self.dice.random_range(DAY..3 * DAY));
                    self.deed(pulled_ms, node, Deed::Pull(version));
                }
            }
            // In waves: at once, or one after the other within moments.
            for _ in 0..self.dice.random_range(1..4) {
                let wave_ms =
                    at_ms + self.dice.random_range(0..MINUTE) * u64::from(self.dice.random_bool(0.6));
                if self.dice.random_bool(0.5) {
                    self.at(wave_ms, Event::DropEverywhere(version));
                    continue;
                }
                for node in 0..self.book.nodes.len() {
                    let moment = wave_ms + self.dice.random_range(0..800);
                    self.deed(moment, node, Deed::Drop(version));
                }
            }
            let soon = |dice: &mut ChaCha8Rng| at_ms + dice.random_range(0..3000);
            if self.dice.random_bool(0.4) {
                let (node, crash_ms) = (self.some_node(), soon(self.dice));
                self.at(crash_ms, Event::Fault(Fault::Crash(node)));
                let back_ms = crash_ms + self.dice.random_range(100..HOUR);
                self.at(back_ms, Event::Fault(Fault::Start(node)));
            }
            if self.dice.random_bool(0.3) {
                let (node, policy) = (self.some_node(), self.dice.random_range(0..self.book.policies.len()));
                let moment = soon(self.dice);
                self.deed(moment, node, Deed::Apply(policy));
            }
            if self.dice.random_bool(0.3) {
                let (node, moment) = (self.some_node(), soon(self.dice));
                self.deed(moment, node, Deed::Pin(version));
            }
            if self.dice.random_bool(0.2) {
                let (node, moment) = (self.some_node(), soon(self.dice));
                self.save(moment, node, version);
            }
        }
    }

    fn cuts(&mut self) {
        for _ in 0..self.dice.random_range(2..7) {
            let (at_ms, site) = (self.some_time(), self.dice.random_range(0..self.book.sites));
            let back_ms = at_ms + self.dice.random_range(HOUR..30 * DAY);
            self.at(at_ms, Event::Fault(Fault::SiteOff(site)));
            self.at(back_ms, Event::Fault(Fault::SiteOn(site)));
        }
        if self.dice.random_bool(0.4) {
            let (at_ms, halves) = (self.some_time(), self.dice.random());
            let back_ms = at_ms + self.dice.random_range(HOUR..20 * DAY);
            self.at(at_ms, Event::Fault(Fault::Part(halves)));
            self.at(back_ms, Event::Fault(Fault::Heal));
        }
        for _ in 0..self.dice.random_range(2..8) {
            let (at_ms, node) = (self.some_time(), self.some_node());
            let back_ms = at_ms + self.dice.random_range(MINUTE..5 * DAY);
            self.at(at_ms, Event::Fault(Fault::Crash(node)));
            self.at(back_ms, Event::Fault(Fault::Start(node)));
        }
    }

    fn damage(&mut self) {
        for _ in 0..self.dice.random_range(0..4) {
            let (at_ms, node, random) = (self.some_time(), self.some_node(), self.dice.random());
            self.at(at_ms, Event::Fault(Fault::Rot(node, random)));
        }
        for _ in 0..self.dice.random_range(0..3) {
            let (at_ms, node, random) = (self.some_time(), self.some_node(), self.dice.random());
            self.at(at_ms, Event::Fault(Fault::Lose(node, random)));
        }
    }
}
