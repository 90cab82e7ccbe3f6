//! Objects: naming the files of the artists' tree, assembling what comes from elsewhere, and serving what is here.

pub mod encode;
pub mod hash;
pub mod incoming;
pub mod prove;
pub mod reread;
pub mod serve;

mod block_set;
mod copy;
mod name;

#[cfg(test)]
pub(crate) mod fixture;
