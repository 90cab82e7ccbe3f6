#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes of seconds are far below any limit, and rounding down is meant"
)]

mod any_order;
mod bbr1;
mod cubic;
mod flow;
mod link;
mod traces;
