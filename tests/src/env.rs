//! What a simulated node can reach: the virtual clock, timers, dice, the network and the log.

use std::ops::RangeInclusive;

use avalon_protocol::{
    feed::{FeedHead, FeedId},
    hash::{ContentId, ObjectHash},
    id::{ProjectName, VersionId},
    rel_path::RelPath,
    wire::Want,
};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    agenda::Agenda,
    event::{Event, NodeIndex, Note, Wake},
    event_log::EventLog,
    link::Network,
    mutation::Mutation,
};

/// The true time at which every story begins, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_790_000_000_000;

/// What a node said in the current step, for the invariants to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// "My copy of this feed ends here", by heads or by the records themselves.
    Head {
        /// Who says it.
        from: NodeIndex,
        /// To whom.
        to: NodeIndex,
        /// The feed.
        feed: FeedId,
        /// Where it ends.
        head: FeedHead,
    },
    /// Something about a project, without a head.
    Project {
        /// Who says it.
        from: NodeIndex,
        /// To whom.
        to: NodeIndex,
        /// The project.
        project: ProjectName,
    },
    /// "Send me these blocks."
    Want {
        /// Who asks.
        from: NodeIndex,
        /// In which project.
        project: ProjectName,
        /// For what.
        want: Want,
    },
    /// "What this peer sent cannot be right."
    Accused {
        /// Who says it.
        from: NodeIndex,
        /// About whom.
        peer: NodeIndex,
        /// Why.
        reason: String,
    },
    /// An artist saved a file.
    Saved {
        /// Where.
        node: NodeIndex,
        /// In which version.
        version: VersionId,
        /// The path within it.
        path: RelPath,
        /// What.
        object: ObjectHash,
    },
    /// Somebody asked for a version.
    Pulled {
        /// Where.
        node: NodeIndex,
        /// Which.
        version: VersionId,
    },
    /// What an artist had just saved was lost with the power, or is torn.
    Lost {
        /// Where.
        node: NodeIndex,
        /// In which version.
        version: VersionId,
        /// The path within it.
        path: RelPath,
        /// What is there now.
        torn: Option<ObjectHash>,
    },
    /// "Your version is published": to whoever saved it.
    Acknowledged {
        /// Where.
        node: NodeIndex,
        /// Which.
        version: VersionId,
        /// The content that was published.
        content: ContentId,
    },
    /// Incoming blocks of an object are not believed any more, because an fsync failed.
    Forgot {
        /// Where.
        node: NodeIndex,
        /// In which project.
        project: ProjectName,
        /// Which object.
        object: ObjectHash,
    },
    /// The state was put back to a backup.
    Restored {
        /// Where.
        node: NodeIndex,
    },
    /// "This feed has two histories": nobody here ever makes one.
    Fork {
        /// Who says it.
        from: NodeIndex,
        /// The feed.
        feed: FeedId,
    },
}

/// Which start of which node: what timers belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// The node.
    pub node: NodeIndex,
    /// How often it had started.
    pub boot: u32,
}

/// Everything around the nodes.
#[derive(Debug)]
pub struct Env {
    /// Virtual time in milliseconds.
    pub now_ms: u64,
    /// The one source of chance.
    pub dice: ChaCha8Rng,
    /// The lines between the nodes.
    pub network: Network,
    /// The trace.
    pub log: EventLog,
    /// Whether things may still break and liars may still lie.
    pub faults: bool,
    /// In which way nodes go wrong, if they do.
    pub wrong: Option<Mutation>,
    /// What was said in this step.
    pub said: Vec<Said>,
    agenda: Agenda<Event>,
    appointments: u64,
}

impl Env {
    /// Starts at time 0 with an empty agenda.
    pub fn new(dice: ChaCha8Rng, network: Network, log: EventLog) -> Self {
        Self {
            now_ms: 0,
            dice,
            network,
            log,
            faults: true,
            wrong: None,
            said: Vec::new(),
            agenda: Agenda::new(),
            appointments: 0,
        }
    }

    /// Lets an event happen at a time; events of one time happen in the order of these calls.
    pub fn at(&mut self, at_ms: u64, event: Event) {
        self.appointments += 1;
        let at_ms = at_ms.max(self.now_ms);
        self.agenda.add(at_ms, self.appointments, event);
    }

    /// Lets an event happen after a while.
    pub fn after(&mut self, delay_ms: u64, event: Event) {
        self.at(self.now_ms + delay_ms, event);
    }

    /// Sets a timer of a node.
    pub fn wake(&mut self, who: Who, delay_ms: u64, wake: Wake) {
        self.after(delay_ms, Event::Wake { node: who.node, boot: who.boot, wake });
    }

    /// Moves the clock to the next event and returns it.
    pub fn pop(&mut self) -> Option<Event> {
        let (at_ms, event) = self.agenda.take()?;
        self.now_ms = at_ms;
        Some(event)
    }

    /// Draws a number.
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.dice.random_range(range)
    }

    /// Says yes in so many of a hundred cases.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.dice.random_ratio(percent, 100)
    }

    /// Says yes in so many of a hundred cases while there are faults.
    pub fn fault(&mut self, percent: u32) -> bool {
        self.faults && self.chance(percent)
    }

    /// Says whether nodes go wrong in this way.
    pub fn is_wrong(&self, way: Mutation) -> bool {
        self.wrong == Some(way)
    }

    /// Returns the time by a clock that is so far ahead, in milliseconds since 1970.
    pub fn clock_ms(&self, ahead_ms: i64) -> u64 {
        (EPOCH_MS + self.now_ms).saturating_add_signed(ahead_ms)
    }

    /// Returns how long an fsync takes: mostly at most `usual_ms`, and now and then much longer.
    pub fn sync_ms(&mut self, usual_ms: u64) -> u64 {
        if self.fault(3) { self.between(100..=2000) } else { self.between(1..=usual_ms) }
    }

    /// Writes down what a node did.
    pub fn note(&mut self, note: &Note) {
        self.log.note(self.now_ms, note.name(), note);
    }
}
