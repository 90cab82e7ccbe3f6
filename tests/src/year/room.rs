//! Making room, as the daemon does it: rounds of victims, one after the other, until there is room enough or nothing more may go.

use std::collections::VecDeque;

use avalon_protocol::drop::{Candidate, Choice, Guard, Pressure, choose};

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
const WHILE_BLOCKED_MS: u64 = 6 * HOUR;
/// How long a version that could not go is left alone, unless something happens that may change that.
const REFUSED_FOR_MS: u64 = 24 * HOUR;

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
        let Some(life) = self.nodes[n].life() else { return };
        if !std::mem::replace(&mut life.room_due, true) {
            self.wake(n, delay_ms, Wake::Room);
        }
    }

    /// Begins a round, if none is under way.
    pub(super) fn relieve(&mut self, n: NodeIndex) {
        let now_ms = self.now_ms;
        let Some(life) = self.nodes[n].life() else { return };
        life.room_due = false;
        life.refused.retain(|_, (_, since_ms)| now_ms < *since_ms + REFUSED_FOR_MS);
        if life.round.is_some() {
            return;
        }
        let pressure = self.nodes[n].pressure(&self.book);
        let over = pressure.excess_bytes();
        let choice = if over > 0 { self.choice(n, over) } else { self.choice_for_waiting(n, &pressure) };
        if let Err(violation) = self.checker.round(n, over, &choice) {
            self.broken(violation);
        }
        let is_blocked = choice.victims.is_empty() && over > 0;
        if let Some(life) = self.nodes[n].life() {
            if is_blocked && !life.is_blocked {
                self.did("quota_exceeded", n, 0);
            }
            if let Some(life) = self.nodes[n].life() {
                life.is_blocked = is_blocked;
            }
        }
        if is_blocked {
            return self.room_in(n, WHILE_BLOCKED_MS);
        }
        if let Some(first) = choice.victims.first().copied() {
            if let Some(life) = self.nodes[n].life() {
                life.round = Some(VecDeque::from(choice.victims));
            }
            return self.begin_drop(n, first, Purpose::Room);
        }
        // Whoever waited for room may have some now.
        for (_, bytes, v) in self.waiting(n) {
            if self.has_room(n, v, bytes) {
                self.consider(n, v);
            }
        }
    }

    /// Chooses what may go for the smallest of what waits for room, of which that is enough: otherwise nothing goes.
    fn choice_for_waiting(&self, n: NodeIndex, pressure: &Pressure) -> Choice<VersionIndex> {
        let waiting = if self.is(Mutation::WaitsForRoomOnly) { Vec::new() } else { self.waiting(n) };
        let firm = waiting.into_iter().filter(|(is_expendable, ..)| !is_expendable);
        let excesses =
            firm.map(|(_, bytes, _)| pressure.excess_bytes_for(bytes)).filter(|excess| *excess > 0);
        let choice = excesses.into_iter().next().map(|excess| (excess, self.choice(n, excess)));
        let enough = choice.filter(|(excess, choice)| choice.bytes >= *excess);
        enough.map_or_else(|| choose(&[], 0), |(_, choice)| choice)
    }

    /// Chooses what may go.
    fn choice(&self, n: NodeIndex, excess: u64) -> Choice<VersionIndex> {
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
        choose(&candidates, excess)
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
            None => {
                life.round = None;
                self.consider_all(n);
                self.room_soon(n);
            }
        }
    }
}
