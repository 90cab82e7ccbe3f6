//! How fast content comes to a site, roughly: by the limits of now that this node knows, else as it comes at this moment.

use std::collections::BTreeSet;

use avalon_protocol::{
    control::{LimitItem, PolicyDiffSpeed},
    id::SiteName,
    limit::{Class, Direction},
};

/// What this node knows of its line.
#[derive(Debug)]
pub struct Line<'a> {
    /// This node's site.
    pub here: &'a SiteName,
    /// The other sites that it knows.
    pub others: BTreeSet<&'a SiteName>,
    /// Its limits.
    pub limits: &'a [LimitItem],
    /// What comes in at this moment, in bytes a second.
    pub recent: f64,
}

impl Line<'_> {
    /// Returns how many bytes a second come to a site, and where that is from; 0 when a limit lets nothing through.
    pub fn speed(&self, site: &SiteName) -> (Option<f64>, PolicyDiffSpeed) {
        if site != self.here {
            // Others may send as well, and a limit there may be lower: it is the only line there that is known here.
            let sends = [self.general(Direction::Send), self.with(Direction::Send, site)];
            return match sends.into_iter().flatten().min() {
                Some(rate) => (Some(float(rate)), PolicyDiffSpeed::SendLimit),
                None => (None, PolicyDiffSpeed::Unknown),
            };
        }
        let each = self.others.iter().map(|other| self.with(Direction::Receive, other));
        // Only when every other site has a limit of its own do they add up to one.
        let all: Option<u64> = each.sum::<Option<u64>>().filter(|_| !self.others.is_empty());
        match [self.general(Direction::Receive), all].into_iter().flatten().min() {
            Some(rate) => (Some(float(rate)), PolicyDiffSpeed::ReceiveLimit),
            None if self.recent > 0.0 => (Some(self.recent), PolicyDiffSpeed::Recent),
            None => (None, PolicyDiffSpeed::Unknown),
        }
    }

    /// Returns the lowest limit for all sites together.
    fn general(&self, direction: Direction) -> Option<u64> {
        self.lowest(direction, None)
    }

    /// Returns the lowest limit for one other site.
    fn with(&self, direction: Direction, site: &SiteName) -> Option<u64> {
        self.lowest(direction, Some(site.as_str()))
    }

    /// What a policy brings is of the last class.
    fn lowest(&self, direction: Direction, site: Option<&str>) -> Option<u64> {
        let limits = self.limits.iter().filter(|limit| {
            limit.holds
                && limit.direction == direction
                && limit.site.as_deref() == site
                && limit.class.is_none_or(|class| class == Class::Backfill)
        });
        limits.map(|limit| limit.rate_bytes_per_second).min()
    }
}

fn float(rate: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
    let rate = rate as f64;
    rate
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::LimitOrigin;

    use super::*;

    fn limit(direction: Direction, site: Option<&str>, rate: u64) -> LimitItem {
        LimitItem {
            id: "1".into(),
            origin: LimitOrigin::Live,
            rate: String::new(),
            rate_bytes_per_second: rate,
            direction,
            site: site.map(str::to_owned),
            class: None,
            when: "always".into(),
            holds: true,
            bytes_per_second: 0.0,
        }
    }

    fn speeds(limits: &[LimitItem], recent: f64) -> [(Option<f64>, PolicyDiffSpeed); 2] {
        let [london, montreal, home] =
            ["london", "montreal", "home"].map(|name| name.parse::<SiteName>().unwrap());
        let line = Line { here: &london, others: [&montreal, &home].into(), limits, recent };
        [line.speed(&london), line.speed(&montreal)]
    }

    #[test]
    fn the_limits_that_hold_say_how_fast_it_comes() {
        use Direction::{Receive, Send};
        let general = [limit(Receive, None, 80), limit(Send, None, 50), limit(Send, Some("montreal"), 20)];
        let expected =
            [(Some(80.0), PolicyDiffSpeed::ReceiveLimit), (Some(20.0), PolicyDiffSpeed::SendLimit)];
        assert_eq!(speeds(&general, 7.0), expected);
        // Limits of single sites add up, below that of all.
        let each = [limit(Receive, Some("montreal"), 30), limit(Receive, Some("home"), 40)];
        assert_eq!(speeds(&each, 7.0)[0].0, Some(70.0));
        let both: Vec<LimitItem> = each.iter().chain([&limit(Receive, None, 60)]).cloned().collect();
        assert_eq!(speeds(&both, 7.0)[0].0, Some(60.0));
        // Home has none, so that nothing bounds what comes.
        assert_eq!(speeds(&each[..1], 7.0)[0], (Some(7.0), PolicyDiffSpeed::Recent));
    }

    #[test]
    fn limits_that_do_not_hold_or_are_for_others_do_not_count() {
        let closed = LimitItem { holds: false, ..limit(Direction::Receive, None, 80) };
        let pulls = LimitItem { class: Some(Class::Waiting), ..limit(Direction::Receive, None, 80) };
        assert_eq!(speeds(&[closed, pulls], 0.0), [(None, PolicyDiffSpeed::Unknown); 2]);
        let nothing = limit(Direction::Receive, None, 0);
        assert_eq!(speeds(&[nothing], 7.0)[0], (Some(0.0), PolicyDiffSpeed::ReceiveLimit));
    }
}
