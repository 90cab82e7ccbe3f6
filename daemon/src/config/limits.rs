//! `[[limit]]`: what content may take of the line.

use avalon_protocol::limit::{Direction, Limit};

use super::{Checker, ConfigError, raw::RawLimit};

impl Checker<'_> {
    /// Reads the limits, one for each direction.
    pub(super) fn limits(&self, raw: Vec<RawLimit>) -> Result<Vec<Limit>, ConfigError> {
        let mut limits = Vec::new();
        for raw in raw {
            let rate = raw.rate.parse().map_err(|error| self.value("limit.rate", format!("{error}")))?;
            let site = raw.site.as_deref().map(str::parse).transpose();
            let site = site.map_err(|error| self.value("limit.site", format!("{error}")))?;
            let when = raw.when.as_deref().unwrap_or("always").parse();
            let when = when.map_err(|error| self.value("limit.when", format!("{error}")))?;
            let class = raw.class.map(Into::into);
            let directions = raw.direction.map_or(Direction::ALL.to_vec(), |direction| vec![direction]);
            let of = |direction| Limit { rate, direction, site: Option::clone(&site), class, when };
            limits.extend(directions.into_iter().map(of));
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use avalon_protocol::plan::Priority;

    use crate::config::{Config, ConfigError, compare};

    fn parse(limits: &str) -> Result<Config, ConfigError> {
        let text = format!("[node]\nstate_dir = \"/var/lib/avalond\"\n{limits}");
        Config::parse(Path::new("avalond.toml"), &text)
    }

    #[test]
    fn a_limit_holds_both_ways_and_always_unless_it_says_otherwise() {
        let config = parse(
            "[[limit]]\nrate = \"200Mbit/s\"\n[[limit]]\nrate = \"0\"\ndirection = \"send\"\nsite = \"montreal\"\n\
             class = \"backfill\"\nwhen = \"mon-fri 09:00-19:00\"\n",
        )
        .unwrap();
        let [send, receive, montreal] = config.limits.as_slice() else { panic!("{:?}", config.limits) };
        assert_eq!(send.rate.bytes_per_second, 25_000_000);
        assert_eq!([send.direction, receive.direction].as_slice(), super::Direction::ALL);
        assert_eq!((montreal.rate.bytes_per_second, montreal.class), (0, Some(Priority::Backfill)));
        assert_eq!(montreal.site.as_ref().unwrap().as_str(), "montreal");
        assert_eq!(montreal.when, "mon-fri 09:00-19:00".parse().unwrap());
    }

    #[test]
    fn what_is_written_wrongly_says_what_would_be_right() {
        for (limit, expected) in [
            ("rate = \"fast\"", "limit.rate: \"fast\" is not a rate; write it like 200Mbit/s"),
            ("site = \"x\"", "missing key `rate`"),
            ("rate = \"1MB/s\"\nsite = \"a b\"", "limit.site: "),
            ("rate = \"1MB/s\"\nwhen = \"noon\"", "limit.when: \"noon\" is not a time of the week"),
            ("rate = \"1MB/s\"\nclass = \"urgent\"", "waiting"),
            ("rate = \"1MB/s\"\ndirection = \"up\"", "receive"),
            ("rate = \"1MB/s\"\nsites = \"x\"", "unknown key `sites`; did you mean `site`?"),
        ] {
            let error = parse(&format!("[[limit]]\n{limit}\n")).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn changed_limits_apply_at_a_reload() {
        let running = parse("[[limit]]\nrate = \"200Mbit/s\"\n").unwrap();
        let new = parse("").unwrap();
        let reload = compare(&running, &new);
        assert_eq!((reload.applied, reload.needs_restart), (vec!["limits".to_owned()], Vec::new()));
        assert_eq!(reload.config.limits, []);
    }
}
