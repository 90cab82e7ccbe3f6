//! [`JournalLine`]: how a line looks in the systemd journal.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    registry::LookupSpan,
};

/// The priority as `sd-daemon(3)` writes it, then the message and its fields. The journal adds time and unit.
///
/// Fields are a part of the text, and not fields of the journal, because `journalctl` shows the text alone: "the project
/// is paused" without its name and the reason helps nobody.
pub(super) struct JournalLine(Format<Full, ()>);

impl JournalLine {
    pub(super) fn new() -> Self {
        Self(Format::default().without_time().with_level(false).with_target(false))
    }
}

impl<S, N> FormatEvent<S, N> for JournalLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// The priority of `syslog(3)`.
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}
