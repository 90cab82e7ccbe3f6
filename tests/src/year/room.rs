//! Making room, as the daemon does it: rounds of victims, one after the other, until there is room enough or nothing more may go.

use std::collections::VecDeque;

use avalon_protocol::drop::{Candidate, Choice, Guard, Pressure, choose, choose_for};

use super::{
    book::{NodeIndex, VersionIndex},
    dropper::{Purpose, Stays},
    event::Wake,
    mutation::Mutation,
    script::HOUR,
    world::World,
};

/// How long after something happened it is looked: much comes together.
const AFTER_EVENT_MS: u64 = 1000;
/// How often it is looked again while there is too little room.
pub const WHILE_BLOCKED_MS: u64 = 6 * HOUR;
/// How long a version that could not go is left alone, unless something happens that may change that.
const REFUSED_FOR_MS: u64 = 24 * HOUR;
/// How long nothing goes to let something come when that was in vain: what was chosen did not go after all.
const IN_VAIN_FOR_MS: u64 = HOUR;

impl World {
    /// Looks for room in a moment.
    pub(super) fn room_soon(&mut self, n: NodeIndex) {
        self.room_in(n, AFTER_EVENT_MS);
    }

    /// As [`World::room_soon`], when what could not go may go now.
    pub(super) fn room_again(&mut self, n: NodeIndex) {
        if let Some(life) = self.nodes[n].life() {
            life.refused.clear();
        }
        self.room_soon(n);
    }

    /// Something that belongs here has no room.
    pub(super) fn wants_room(&mut self, n: NodeIndex) {
        if !self.is(Mutation::WaitsForRoomOnly) {
            self.room_soon(n);
        }
    }

    fn room_in(&mut self, n: NodeIndex, delay_ms: u64) {
        if self.nodes[n].quota_bytes.is_none() || self.is(Mutation::NeverEvicts) {
            return;
        }
        let at_ms = self.now_ms + delay_ms;
        let Some(life) = self.nodes[n].life() else { return };
        if life.room_at_ms.is_none_or(|known| at_ms < known) {
            life.room_at_ms = Some(at_ms);
            self.wake(n, delay_ms, Wake::Room);
        }
    }

    /// Begins a round, if none is under way.
    pub(super) fn relieve(&mut self, n: NodeIndex) {
        let now_ms = self.now_ms;
        let Some(life) = self.nodes[n].life() else { return };
        if life.room_at_ms != Some(now_ms) {
            return;
        }
        life.room_at_ms = None;
        life.refused.retain(|_, (_, since_ms)| now_ms < *since_ms + REFUSED_FOR_MS);
        if life.round.is_none() {
            self.make_room(n);
        }
    }

    /// Chooses what goes next, until there is room enough or nothing more may go.
    fn make_room(&mut self, n: NodeIndex) {
        let pressure = self.nodes[n].pressure(&self.book);
        let over = pressure.excess_bytes();
        let choice = if over > 0 { self.choice(n, over) } else { self.choice_for_waiting(n, &pressure) };
        if let Err(violation) = self.checker.round(n, over, &choice) {
            self.broken(violation);
        }
        let is_blocked = choice.victims.is_empty() && over > 0;
        let Some(life) = self.nodes[n].life() else { return };
        let is_news = is_blocked && !life.is_blocked;
        life.is_blocked = is_blocked;
        if let Some(first) = choice.victims.first().copied() {
            life.went_for_waiting |= over == 0;
            life.round = Some(VecDeque::from(choice.victims));
            return self.begin_drop(n, first, Purpose::Room);
        }
        life.round = None;
        if is_news {
            self.did("quota_exceeded", n, 0);
        }
        if is_blocked {
            self.room_in(n, WHILE_BLOCKED_MS);
        }
        self.round_ends(n);
    }

    /// Whoever waited for room may have some now: what belongs here before what would be removed again.
    fn round_ends(&mut self, n: NodeIndex) {
        let mut in_vain = self.nodes[n].life().is_some_and(|life| std::mem::take(&mut life.went_for_waiting));
        for (is_expendable, bytes, v) in self.waiting(n) {
            if self.has_room(n, v, bytes) {
                in_vain &= is_expendable;
                self.consider(n, v);
            }
        }
        if in_vain {
            // The next attempt may come to the same: others go, and come again.
            let until_ms = self.now_ms + IN_VAIN_FOR_MS;
            self.nodes[n].life().into_iter().for_each(|life| life.in_vain_until_ms = until_ms);
            self.room_in(n, IN_VAIN_FOR_MS);
        }
    }

    /// Chooses what may go for the smallest of what waits for room, of which that is enough: otherwise nothing goes.
    fn choice_for_waiting(&self, n: NodeIndex, pressure: &Pressure) -> Choice<VersionIndex> {
        let goes_on = self.nodes[n]
            .life
            .as_ref()
            .is_some_and(|life| life.went_for_waiting || life.in_vain_until_ms <= self.now_ms);
        let waiting =
            if self.is(Mutation::WaitsForRoomOnly) || !goes_on { Vec::new() } else { self.waiting(n) };
        let firm = waiting.into_iter().filter(|(is_expendable, ..)| !is_expendable);
        let sizes: Vec<u64> = firm.map(|(_, bytes, _)| bytes).collect();
        let candidates = if sizes.is_empty() { Vec::new() } else { self.candidates(n) };
        choose_for(&candidates, pressure, sizes)
    }

    /// Chooses what may go.
    fn choice(&self, n: NodeIndex, excess: u64) -> Choice<VersionIndex> {
        choose(&self.candidates(n), excess)
    }

    fn candidates(&self, n: NodeIndex) -> Vec<Candidate<VersionIndex>> {
        let node = &self.nodes[n];
        let mut candidates = Vec::new();
        for v in 0..self.book.versions.len() {
            let Some(held) = node.held[v] else { continue };
            let known = node.life.as_ref().and_then(|life| life.refused.get(&v));
            let guard = match known {
                Some((guard, _)) => Some(*guard),
                None => self.judge(n, v, Purpose::Room).err().map(|why| why.guard.unwrap_or(Guard::Coming)),
            };
            candidates.push(Candidate {
                what: v,
                bytes: self.book.generations[held].bytes,
                last_used_ms: node.used_ms.get(&v).copied().unwrap_or(0),
                is_retired: false,
                guard,
            });
        }
        candidates
    }

    /// The first victim has gone, or stays.
    pub(super) fn victim_done(&mut self, n: NodeIndex, v: VersionIndex, why: Option<Stays>) {
        let now_ms = self.now_ms;
        let Some(life) = self.nodes[n].life() else { return };
        if let Some(why) = why {
            life.refused.insert(v, (why.guard.unwrap_or(Guard::Coming), now_ms));
        }
        let Some(round) = life.round.as_mut() else { return };
        round.pop_front();
        match round.front().copied() {
            Some(next) => self.begin_drop(n, next, Purpose::Room),
            None => self.make_room(n),
        }
    }
}
