//! `[audit]`: how long entries are kept.

use std::time::Duration;

use jiff::{Span, civil::date};

use super::{Checker, ConfigError, raw::RawAudit};

/// Nobody looks at an audit that is forgotten sooner.
const SHORTEST: Duration = Duration::from_secs(24 * 3600);

impl Checker<'_> {
    pub(super) fn audit(&self, raw: RawAudit) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = raw.keep else { return Ok(None) };
        let span = text.parse::<Span>().ok();
        // Years and months are those after some day; which does not matter for an audit.
        let span = span.and_then(|span| span.to_duration(date(2026, 1, 1)).ok());
        let keep = span.and_then(|span| Duration::try_from(span).ok()).filter(|keep| *keep >= SHORTEST);
        let wrong = || {
            self.value(
                "audit.keep",
                format!("{text:?} is not a span of a day or more, such as \"2y\" or \"90d\""),
            )
        };
        keep.map(Some).ok_or_else(wrong)
    }
}
