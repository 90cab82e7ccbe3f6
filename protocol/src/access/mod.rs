//! Who may do what, as far as it is words: the roles of nodes, and the token by which a machine joins.
//!
//! A role stands in a node's certificate. What a role allows is decided by the studio's policy; what proves a role is
//! known to `certs`.

pub mod admission;
pub mod base32;
pub mod listed;
pub mod reader;
pub mod rights;
pub mod role;
mod standing;
pub mod token;

pub use self::{
    admission::Admission,
    listed::Listed,
    reader::{AdmissionReader, Elsewhere, Extract},
    rights::{Action, Rights},
    role::{InvalidRole, Role},
    token::{InvalidToken, InviteId, JoinToken, Seed},
};
