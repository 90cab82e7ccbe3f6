//! How much of a line this node may use: limits in words, and the [`Shaper`] that keeps to them. Pure: time comes in.

mod rule;
mod shaper;
mod when;

pub use self::{
    rule::{Class, Direction, InvalidLimit, Limit, Rate},
    shaper::{BucketId, Shaper, Ticket},
    when::{Moment, When},
};
