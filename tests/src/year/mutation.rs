//! Wrong ways to do it, one of which a run can take: the checker has to notice each.

/// How a simulated node goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// A node proves that it holds what it is dropping itself.
    VouchesWhileDropping,
    /// The state is entered when the proofs are in.
    EntersAfterAsking,
    /// The state is left before the record is durable.
    LeavesEarly,
    /// A holder looks at its records before it reads for the proof, and whether it drops the version after: a drop that ends
    /// in between is not seen.
    LooksAtRecordsFirst,
    /// Two nodes of a site count as two sites.
    CountsNodes,
    /// How many copies other nodes know to be asked for is not listened to.
    IgnoresOthersMinimum,
    /// All proofs are for the same nonce, and one that comes late counts for any attempt.
    TrustsOldProofs,
    /// A holder proves what its records say instead of what lies on its disk.
    ProvesFromRecords,
    /// Pinned versions are dropped.
    IgnoresPins,
    /// A version is pinned without waiting for a drop that has decided already.
    PinsAmidDrop,
    /// What the policy keeps is removed to make room.
    IgnoresPolicy,
    /// All of the directory goes, with what was not published.
    DropsWholeDirectory,
    /// Nobody makes room.
    NeverEvicts,
    /// What belongs at a node waits for room, and nothing is removed for it.
    WaitsForRoomOnly,
    /// What cannot be placed, because other files lie there, is fetched again and again.
    FetchesInVain,
    /// A drop that another one got in the way of is not tried again, by nobody.
    NeverTriesAgain,
    /// A new policy is learnt, and what it says of versions that are known is not looked at.
    IgnoresNewPolicy,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::VouchesWhileDropping,
        Self::EntersAfterAsking,
        Self::LeavesEarly,
        Self::LooksAtRecordsFirst,
        Self::CountsNodes,
        Self::IgnoresOthersMinimum,
        Self::TrustsOldProofs,
        Self::ProvesFromRecords,
        Self::IgnoresPins,
        Self::PinsAmidDrop,
        Self::IgnoresPolicy,
        Self::DropsWholeDirectory,
        Self::NeverEvicts,
        Self::WaitsForRoomOnly,
        Self::FetchesInVain,
        Self::NeverTriesAgain,
        Self::IgnoresNewPolicy,
    ];
}
