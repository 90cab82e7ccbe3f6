//! Saying to a peer that this node is good for a copy of a version.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use avalon_protocol::{
    drop::{NotCounted, Prover},
    hash::ManifestId,
    id::VersionId,
    version_fold::VersionFold,
    wire::FetchProof,
};
use avalon_store::object::prove::{Names, ProveError, read_version};

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    net::Vouched,
    policy::Ranks,
};

/// Reads a version for a peer that wants to drop its own copy. Dropping the future ends the reading.
///
/// # Errors
/// [`NotCounted`] when the peer must not count on this node.
pub async fn vouch(core: Arc<Core>, ask: FetchProof, read: Arc<AtomicU64>) -> Result<Vouched, NotCounted> {
    let first = (Arc::clone(&core), ask.clone());
    // Nothing is read for an answer that is known before.
    blocking(move || first.0.may_count(&first.1.version, &first.1.manifest)).await?;
    let _turn = match ask.read {
        true => core.space.proofs.acquire().await.ok(),
        false => None,
    };
    let unwanted = Unwanted::default();
    let (there, is_unwanted) = (Arc::clone(&core), Arc::clone(&unwanted.0));
    blocking(move || {
        let mut prover = [Prover::new(&ask.nonce, &there.me, &ask.manifest)];
        if ask.read {
            let go_on = |bytes| {
                read.fetch_add(bytes, Ordering::Relaxed);
                !is_unwanted.load(Ordering::Relaxed)
            };
            read_held(&there, &ask, &mut prover, &go_on)?;
        }
        // Only now, when all is read: this is the moment from which the peer counts on this node.
        let min_copies = there.may_count(&ask.version, &ask.manifest)?;
        let [prover] = prover;
        Ok(Vouched { proof: prover.finish(), min_copies })
    })
    .await
}

/// Tells the thread that reads when the future that waits for it is dropped.
#[derive(Debug, Default)]
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read_held(
    core: &Core,
    ask: &FetchProof,
    prover: &mut [Prover],
    go_on: &dyn Fn(u64) -> bool,
) -> Result<(), NotCounted> {
    let fold = core.ledger.version(&ask.version).map_err(|_| NotCounted::Unsure)?.unwrap_or_default();
    let held = held_as(&fold, core, &ask.manifest).ok_or(NotCounted::NotHeld)?;
    let manifest = core.ledger.manifest(held).ok().flatten().ok_or(NotCounted::Unsure)?;
    let dir = core.project(&ask.version.project).and_then(|project| project.dir());
    let dir = dir.ok_or(NotCounted::Damaged)?;
    match read_version(&dir, &manifest, prover, Names::Trust, go_on) {
        Ok(_) => Ok(()),
        Err(ProveError::Stopped) => Err(NotCounted::Busy),
        Err(error) => {
            tracing::warn!(version = %ask.version, error = %ErrorChain(&error), "a peer asked whether a version is whole here, and it is not");
            Err(NotCounted::Damaged)
        }
    }
}

/// Returns under which manifest this node holds what another one describes; the files are the same.
fn held_as(fold: &VersionFold, core: &Core, manifest: &ManifestId) -> Option<ManifestId> {
    let held: Vec<ManifestId> = fold.held_by(&core.me).collect();
    let same = held.iter().copied().find(|held| held == manifest);
    same.or_else(|| held.into_iter().find(|held| fold.same_as(held, manifest)))
}

impl Core {
    /// Says whether this node is good for a copy now, and how many are asked for. Blocks.
    fn may_count(&self, version: &VersionId, manifest: &ManifestId) -> Result<u32, NotCounted> {
        // The state before the records: see `avalon_protocol::drop`.
        let dropping = self.space.dropping();
        let mut fold = None;
        dropping.vouch(version, || {
            fold = self.ledger.version(version).ok().map(Option::unwrap_or_default);
            fold.as_ref().is_none_or(|fold| fold.holds(&self.me, manifest))
        })?;
        let fold = fold.ok_or(NotCounted::Unsure)?;
        self.min_copies(version, &fold).ok_or(NotCounted::Unsure)
    }

    /// Returns at how many sites a version has to be by the policy in effect, at least one; `None` while that is not known.
    /// Blocks.
    pub fn min_copies(&self, version: &VersionId, fold: &VersionFold) -> Option<u32> {
        let Some(policy) = self.policy.in_effect() else { return Some(1) };
        let ruling = self.ruling(&policy, &self.me, version, fold, &mut Ranks::default()).ok()??;
        ruling.ok().map(|ruling| ruling.min_copies.max(1))
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{
        drop::{Nonce, Proof},
        manifest::Manifest,
        mode::ProjectMode,
        record::{Held, Record},
    };
    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::{
        fixture::{Node, Studio, manifest},
        net::{Net, NetEvent},
        tasks::Tasks,
    };

    const CONTENT: &[u8] = b"a robot";

    struct Pair {
        _studio: Studio,
        london: Node,
        tasks: Tasks,
        net: Net,
        _other: Net,
        _events: [Receiver<NetEvent>; 2],
        manifest: Manifest,
    }

    /// london holds a version, and montreal can ask it.
    async fn pair() -> Pair {
        let studio = Studio::new();
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        let manifest = manifest(1, CONTENT);
        london.writes(&manifest, CONTENT);
        london.publishes(&manifest);
        let montreal = studio.node("srv@montreal", ProjectMode::OnDemand);
        let tasks = Tasks::new();
        let (serving, events) = london.net(&tasks, &[]);
        let (net, mut met) = montreal.net(&tasks, &[serving.local_addr().to_string()]);
        met.recv().await.unwrap();
        Pair { _studio: studio, london, tasks, net, _other: serving, _events: [events, met], manifest }
    }

    impl Pair {
        fn question(&self) -> FetchProof {
            let (version, manifest) = (self.manifest.version().clone(), self.manifest.id());
            FetchProof { version, manifest, nonce: Nonce::from_bytes([4; 32]), read: true }
        }

        async fn ask(&self, question: FetchProof) -> Result<Vouched, NotCounted> {
            let link = self.net.link(&self.london.core.me).unwrap();
            link.fetch_proof(question).await.unwrap()
        }

        fn expected(&self, content: &[u8]) -> Proof {
            let mut prover =
                Prover::new(&Nonce::from_bytes([4; 32]), &self.london.core.me, &self.manifest.id());
            prover.file(content.len() as u64);
            prover.bytes(content);
            prover.finish()
        }
    }

    #[tokio::test]
    async fn a_holder_proves_what_lies_on_its_disk_now() {
        let pair = pair().await;
        let good = Vouched { proof: pair.expected(CONTENT), min_copies: 1 };
        assert_eq!(pair.ask(pair.question()).await, Ok(good));
        pair.london.writes(&pair.manifest, b"A robot");
        assert_eq!(pair.ask(pair.question()).await.unwrap().proof, pair.expected(b"A robot"));
        pair.london.writes(&pair.manifest, b"a rob");
        assert_eq!(pair.ask(pair.question()).await, Err(NotCounted::Damaged));
        let by_records = FetchProof { read: false, ..pair.question() };
        assert!(pair.ask(by_records).await.is_ok(), "nothing is read");
        drop(pair.tasks);
    }

    #[tokio::test]
    async fn who_drops_it_or_does_not_hold_it_does_not_count() {
        let pair = pair().await;
        let version = pair.manifest.version().clone();
        let entered = pair.london.core.space.enter(&version).unwrap();
        assert_eq!(pair.ask(pair.question()).await, Err(NotCounted::Dropping));
        drop(entered);
        assert!(pair.ask(pair.question()).await.is_ok());
        let other = FetchProof { manifest: manifest(1, b"other").id(), ..pair.question() };
        assert_eq!(pair.ask(other).await, Err(NotCounted::NotHeld));
        let mut elsewhere = pair.question();
        elsewhere.version.project = "secret".parse().unwrap();
        assert_eq!(pair.ask(elsewhere).await, Err(NotCounted::NotHeld), "not shared looks like not held");
        pair.london.says(Record::Dropped(Held { version, manifest: pair.manifest.id() }));
        assert_eq!(pair.ask(pair.question()).await, Err(NotCounted::NotHeld));
    }

    #[tokio::test]
    async fn one_proof_at_a_time_is_read_for_a_peer_and_it_ends_when_the_peer_gives_up() {
        let pair = pair().await;
        let disk = pair.london.core.space.proofs.acquire_many(2).await.unwrap();
        let (first, second) = (Box::pin(pair.ask(pair.question())), Box::pin(pair.ask(pair.question())));
        let (answer, other) = futures_util::future::select(first, second).await.factor_first();
        assert_eq!(answer, Err(NotCounted::Busy), "the other waits for its turn to read");
        drop(other);
        drop(disk);
        while pair.ask(pair.question()).await == Err(NotCounted::Busy) {}
        assert!(pair.ask(pair.question()).await.is_ok());
    }
}
