//! The receiving half: what other nodes published comes here.
//!
//! In the order of the way of the data: [`announce`] hands records to peers and takes theirs, [`jobs`] decides what has
//! to come and keeps count, [`transfer`] gets the blocks and verifies each as it lands, [`place`] makes the version
//! visible and records that it is here, [`renumber`] gives what lost its number another one. [`serve`] is the other side: it answers peers from the project tree, [`encode`]
//! makes the answers short.

pub mod announce;
pub mod fork;
pub mod listen;
pub mod jobs;
pub mod transfer;
pub mod place;
pub mod renumber;
pub mod serve;
pub mod encode;
