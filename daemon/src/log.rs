//! The log: where lines go, how they look, and what they may contain.
//!
//! Names of files come from artists and from other studios; what would move a cursor, hide text or start a new line is
//! escaped before it reaches a terminal or a file.

mod chain;
mod escape;
mod journal;

use std::io::IsTerminal as _;

use thiserror::Error;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, ParseError},
    fmt,
    fmt::{FormatFields, MakeWriter, format},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

pub use self::chain::ErrorChain;
use self::{
    escape::{Escaped, JsonEscape},
    journal::JournalLine,
};

/// Overrides the configured level, as `info` or `avalond=debug`.
pub const LEVEL_VARIABLE: &str = "AVALOND_LOG";

/// `json` makes every line an object.
pub const FORMAT_VARIABLE: &str = "AVALOND_LOG_FORMAT";

/// Changes what is logged while the daemon runs.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    overridden: Option<String>,
}

/// Why there is no log, or not at that level.
#[derive(Debug, Error)]
pub enum LogError {
    /// The level does not parse.
    #[error("{origin} is not a log level such as info or avalond=debug: {level:?}")]
    BadLevel {
        /// The key or variable that it comes from.
        origin: &'static str,
        /// What it says.
        level: String,
        /// Why it does not parse, if there is more to say.
        #[source]
        source: Option<ParseError>,
    },
    /// The format is not known.
    #[error("{FORMAT_VARIABLE} is neither text nor json: {format:?}")]
    BadFormat {
        /// What it says.
        format: String,
    },
    /// The variable wins over the configuration until the daemon is started without it.
    #[error("the log level stays {level:?} because {LEVEL_VARIABLE} is set")]
    Overridden {
        /// The level that the variable asks for.
        level: String,
    },
    /// A log was started before in this process.
    #[error("the log was started before")]
    Twice {
        /// Why.
        #[source]
        source: tracing_subscriber::util::TryInitError,
    },
    /// The log is gone, as it is while the process ends.
    #[error("the log level cannot be changed")]
    Gone {
        /// Why.
        #[source]
        source: reload::Error,
    },
}

/// Starts the log of this process, on stderr or in the journal. `level` is what the configuration says.
///
/// # Errors
/// [`LogError`] names the setting that is wrong. Nothing is logged then.
pub fn init(level: &str) -> Result<LogHandle, LogError> {
    let settings = Settings::from_process()?;
    let (filter, handle) = settings.filter(level)?;
    let output: Box<dyn Layer<Filtered> + Send + Sync> = match settings.output {
        Output::Journal => journal(std::io::stderr),
        Output::Text(look) => text(std::io::stderr, look),
        Output::Json => json(std::io::stderr),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .try_init()
        .map_err(|source| LogError::Twice { source })?;
    Ok(handle)
}

/// Checks a level without using it, for `--check-config`.
///
/// # Errors
/// [`LogError::BadLevel`].
pub fn check_level(level: &str) -> Result<(), LogError> {
    parse_level("log.level", level).map(drop)
}

/// Says whether what this process writes to stderr goes to the journal.
pub fn stderr_is_the_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    stderr_id().is_some_and(|stderr| started_by_journald(stream.as_deref(), stderr))
}

/// Says whether `stderr` is the stream that systemd connected to the journal, going by `JOURNAL_STREAM`, which is
/// `device:inode`. It is not when somebody redirected it since.
pub fn started_by_journald(journal_stream: Option<&str>, stderr: FileId) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|text| text.split_once(':')) else { return false };
    device.parse() == Ok(stderr.device) && inode.parse() == Ok(stderr.inode)
}

/// What makes an open file the same as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// The number of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl LogHandle {
    /// Changes what is logged from now on.
    ///
    /// # Errors
    /// [`LogError::BadLevel`] leaves all as it was; so does [`LogError::Overridden`], which a reload should show.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = parse_level("log.level", level)?;
        if let Some(level) = &self.overridden {
            return Err(LogError::Overridden { level: level.clone() });
        }
        self.filter.reload(filter).map_err(|source| LogError::Gone { source })
    }
}

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

/// What the process was started with.
struct Settings {
    level: Option<String>,
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Journal,
    Text(Look),
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Coloured,
    Plain,
}

impl Settings {
    fn from_process() -> Result<Self, LogError> {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let level = variable(LEVEL_VARIABLE);
        let look = if std::io::stderr().is_terminal() { Look::Coloured } else { Look::Plain };
        let output = match variable(FORMAT_VARIABLE).as_deref() {
            Some("json") => Output::Json,
            Some("text") => Output::Text(look),
            None if stderr_is_the_journal() => Output::Journal,
            None => Output::Text(look),
            Some(format) => return Err(LogError::BadFormat { format: format.to_owned() }),
        };
        Ok(Self { level, output })
    }

    fn filter(&self, configured: &str) -> Result<(reload::Layer<EnvFilter, Registry>, LogHandle), LogError> {
        let configured = parse_level("log.level", configured)?;
        let filter = match &self.level {
            Some(level) => parse_level(LEVEL_VARIABLE, level)?,
            None => configured,
        };
        let (layer, filter) = reload::Layer::new(filter);
        Ok((layer, LogHandle { filter, overridden: self.level.clone() }))
    }
}

fn parse_level(origin: &'static str, level: &str) -> Result<EnvFilter, LogError> {
    let bad = |source| LogError::BadLevel { origin, level: level.to_owned(), source };
    if !level.split(',').all(ends_with_a_level) {
        return Err(bad(None));
    }
    EnvFilter::builder().with_regex(false).parse(level).map_err(|source| bad(Some(source)))
}

/// Says whether a part of a filter names a level. The filter takes any word for the name of a module, so that `inof`
/// would silence everything else.
fn ends_with_a_level(part: &str) -> bool {
    let level = part.rsplit('=').next().unwrap_or(part).trim();
    !level.is_empty() && level.parse::<LevelFilter>().is_ok()
}

fn stderr_id() -> Option<FileId> {
    let stat = rustix::fs::fstat(std::io::stderr()).ok()?;
    Some(FileId { device: stat.st_dev, inode: stat.st_ino })
}

/// One line of text for each event, with fields as `name=value`.
fn text<W>(writer: W, look: Look) -> Box<dyn Layer<Filtered> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).fmt_fields(fields()).with_target(true);
    Box::new(layer.with_ansi(look == Look::Coloured))
}

/// As [`text`], for the journal, which knows the time and the unit.
fn journal<W>(writer: W) -> Box<dyn Layer<Filtered> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).fmt_fields(fields()).with_ansi(false);
    Box::new(layer.event_format(JournalLine::new()))
}

fn fields() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    let fields = format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{}", Escaped(value)),
        name => write!(writer, "{name}={}", Escaped(value)),
    });
    tracing_subscriber::field::MakeExt::delimited(fields, " ")
}

/// One JSON object for each event.
fn json<W>(writer: W) -> Box<dyn Layer<Filtered> + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Box::new(fmt::layer().json().flatten_event(true).with_writer(JsonEscape(writer)))
}

#[cfg(test)]
mod tests;
