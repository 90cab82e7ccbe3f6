//! When a publish is whole: the decision that nothing half-written is ever announced.
//!
//! Stage 2 of ten. The watcher and the scan of the daemon (stage 1) look at a version directory and hand in what they see
//! as a [`DirSnapshot`]; [`Settle`] says whether to wait, and for what, or that the version is [`Verdict::Whole`].
//! Then it is hashed (stage 3).
//!
//! Everything here is a pure function of what it is given: no file is opened, and time is a number that comes in.

mod end_mark;
mod exclude;
mod growth;
mod reason;
mod snapshot;
mod state;

pub use self::{
    end_mark::{EndMark, HEAD_BYTES, TAIL_BYTES, end_mark, has_end_mark},
    exclude::{Exclusion, classify, hero_backup},
    reason::{FrameGap, WaitReason, Warning},
    snapshot::{Blocker, BlockerKind, DirSnapshot, NameProblem, ProblemKind, SeenFile, collisions},
    state::{DEFAULT_QUIET, EMPTY_FILE_QUIET, Settle, SettleConfig, Verdict},
};
