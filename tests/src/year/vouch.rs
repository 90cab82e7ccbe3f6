//! Proving to a peer that a version is held, over the bytes that lie on the disk.

use avalon_protocol::{
    drop::{Nonce, NotCounted, Proof, Prover},
    id::NodeId,
};

use super::{
    book::{GenIndex, NodeIndex, VersionIndex},
    event::{Message, Wake},
    mutation::Mutation,
    script::MINUTE,
    world::World,
};

/// How many proofs are read at once.
const PROOFS_AT_ONCE: u64 = 2;

/// When a holder looks whether it is good for a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Before it reads, so that nothing is read in vain.
    First,
    /// Right before it answers: this one counts.
    Last,
}

/// Returns the nonce of a number.
pub fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::from_bytes(bytes)
}

impl World {
    /// How long it takes to read a version.
    pub(super) fn reading_ms(&mut self) -> u64 {
        if self.fault(5) { self.between(1000, 2 * MINUTE) } else { self.between(1, 400) }
    }

    pub(super) fn prove(
        &self,
        n: NodeIndex,
        generation: GenIndex,
        called: &NodeId,
        number: u64,
        reader: NodeIndex,
    ) -> Option<Proof> {
        let generation = &self.book.generations[generation];
        let dir = self.nodes[reader].dirs.get(&generation.version);
        let mut prover = Prover::new(&nonce(number), called, &generation.manifest);
        for (place, bytes) in &generation.files {
            let there = if self.is(Mutation::ProvesFromRecords) && reader == n { Some(bytes) } else { None };
            let file = there.or_else(|| dir.and_then(|dir| dir.get(place)));
            let file = file.filter(|file| file.len() == bytes.len())?;
            prover.file(bytes.len() as u64);
            prover.bytes(file);
        }
        Some(prover.finish())
    }

    /// A peer asks for a proof.
    pub(super) fn question(
        &mut self,
        n: NodeIndex,
        from: NodeIndex,
        v: VersionIndex,
        g: GenIndex,
        attempt: u64,
        nonce: u64,
    ) {
        let first = self.may_count(n, v, g, Look::First);
        let Some(life) = self.nodes[n].life() else { return };
        let busy = !life.proves_for.insert(from);
        let turn = life.proves_for.len() as u64 / PROOFS_AT_ONCE;
        match (first, busy) {
            (Ok(_), false) => {
                let delay_ms = self.reading_ms() * (1 + turn);
                self.wake(n, delay_ms, Wake::Prove(from, v, g, attempt, nonce));
            }
            (Ok(_), true) => self.answer(n, from, v, attempt, Err(NotCounted::Busy)),
            (Err(why), busy) => {
                if let Some(life) = self.nodes[n].life().filter(|_| !busy) {
                    life.proves_for.remove(&from);
                }
                self.answer(n, from, v, attempt, Err(why));
            }
        }
    }

    /// The files have been read for a peer: only now it is said whether it may count on this node.
    pub(super) fn read_for(
        &mut self,
        n: NodeIndex,
        from: NodeIndex,
        v: VersionIndex,
        g: GenIndex,
        attempt: u64,
        nonce: u64,
    ) {
        if let Some(life) = self.nodes[n].life() {
            life.proves_for.remove(&from);
        }
        let real = self.nodes[n].id.clone();
        let proof = self.prove(n, g, &real, nonce, n).ok_or(NotCounted::Damaged);
        let answer = proof.and_then(|proof| Ok((proof, self.may_count(n, v, g, Look::Last)?)));
        self.answer(n, from, v, attempt, answer);
    }

    fn answer(
        &mut self,
        n: NodeIndex,
        to: NodeIndex,
        v: VersionIndex,
        attempt: u64,
        answer: Result<(Proof, u32), NotCounted>,
    ) {
        if let Ok((_, min_copies)) = &answer {
            self.checker.vouched(n, to, attempt, *min_copies);
        }
        self.did(if answer.is_ok() { "proved" } else { "not_proved" }, n, v);
        self.send(n, to, Message::Answer { version: v, attempt, answer });
    }

    /// Says whether this node is good for a copy now: the state before the records.
    fn may_count(&self, n: NodeIndex, v: VersionIndex, g: GenIndex, look: Look) -> Result<u32, NotCounted> {
        let node = &self.nodes[n];
        let life = node.life.as_ref().ok_or(NotCounted::NotHeld)?;
        let (id, manifest) = (&self.book.versions[v].id, &self.book.generations[g].manifest);
        let holds = || node.folds[v].holds(&node.id, manifest);
        match look {
            Look::First if self.is(Mutation::LooksAtRecordsFirst) => {
                holds().then_some(()).ok_or(NotCounted::NotHeld)?
            }
            Look::Last if self.is(Mutation::LooksAtRecordsFirst) => life.dropping.vouch(id, || true)?,
            _ if self.is(Mutation::VouchesWhileDropping) => {
                holds().then_some(()).ok_or(NotCounted::NotHeld)?
            }
            _ => life.dropping.vouch(id, holds)?,
        }
        node.min_copies(&self.book, v, self.now_ms).ok_or(NotCounted::Unsure)
    }
}
