//! Wrong ways for a node to do it, one of which a run of [`crate::world`] can take: the invariants have to notice each.

/// How simulated nodes go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A publish is acknowledged when its record is written, not when it is durable.
    AcknowledgesBeforeSync,
    /// Peers hear of records that are written and not durable.
    AnnouncesBeforeSync,
    /// Records that a start reads are believed without a sync: a killed process leaves some in the page cache only.
    TrustsPageCache,
    /// After a failed fsync another one is believed.
    BelievesSecondSync,
    /// The catalog's place in the feeds is forgotten: a start takes it for up to date.
    ForgetsCursor,
    /// Blocks of peers are taken without a look at their bytes.
    TrustsBytes,
    /// Blocks that were not synced are believed after the power was gone.
    TrustsTornBlocks,
    /// A version that grows gets its files in the order of their names.
    PlacesInAnyOrder,
    /// What was renamed in is recorded before the directory is durable.
    RecordsBeforeDirectory,
    /// What artists saved is recorded without syncing it.
    PublishesUnsynced,
    /// What another artist saved under the same number is overwritten.
    OverwritesOthers,
    /// A record that finds no room is forgotten.
    ForgetsWithoutRoom,
    /// Whoever did not answer once is not asked again.
    NeverAsksAgain,
    /// Groups from the future are refused.
    RefusesTheFuture,
    /// A node that was put back to a backup writes at once.
    WritesAfterRestore,
    /// The incoming area does not say where its files are placed one by one. It takes a cut placement and then a backup of before to
    /// notice, as in seed 22405.
    PlacesUnannounced,
    /// What was concluded from a catalog without own records is written after those came back. It takes a restore and its moment to
    /// notice, as in some stories of seed 194120.
    WritesWhatItConcluded,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::AcknowledgesBeforeSync,
        Self::AnnouncesBeforeSync,
        Self::TrustsPageCache,
        Self::BelievesSecondSync,
        Self::ForgetsCursor,
        Self::TrustsBytes,
        Self::TrustsTornBlocks,
        Self::PlacesInAnyOrder,
        Self::RecordsBeforeDirectory,
        Self::PublishesUnsynced,
        Self::OverwritesOthers,
        Self::ForgetsWithoutRoom,
        Self::NeverAsksAgain,
        Self::RefusesTheFuture,
        Self::WritesAfterRestore,
        Self::PlacesUnannounced,
        Self::WritesWhatItConcluded,
    ];
}
