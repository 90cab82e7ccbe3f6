//! Lines as an operator would see them.

use std::{
    io,
    sync::{Arc, Mutex},
};

use super::*;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Captured {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Runs `body` with a log and returns what was logged.
fn logged(output: Output, settings_level: Option<&str>, body: impl FnOnce(&LogHandle)) -> String {
    let captured = Captured::default();
    let settings = Settings { level: settings_level.map(str::to_owned), output };
    let (filter, handle) = settings.filter("info").unwrap();
    let layer = match output {
        Output::Json => json(captured.clone()),
        Output::Text(look) => text(captured.clone(), look),
        Output::Journal => journal(captured.clone()),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    tracing::subscriber::with_default(subscriber, || body(&handle));
    captured.text()
}

const PLAIN: Output = Output::Text(Look::Plain);
const HOSTILE: &str = "a\x1b[2J\x07\nERROR all is lost\u{202e}gpj\u{9b}31m\u{7f}\r\u{2028}.exr";

fn assert_harmless(line: &str) {
    let line = line.strip_suffix('\n').unwrap();
    let bad = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) || c == '\u{2028}';
    assert!(!line.contains(bad), "{line:?}");
    assert!(line.contains("ERROR all is lost"), "{line:?}");
}

#[test]
fn a_line_is_time_level_target_message_and_fields() {
    let line = logged(PLAIN, None, |_| tracing::info!(site = "london", files = 3, "version placed"));
    assert!(
        line.ends_with("Z  INFO avalond::log::tests: version placed site=\"london\" files=3\n"),
        "{line:?}"
    );
}

#[test]
fn a_line_of_the_journal_is_priority_message_and_fields() {
    let lines = logged(Output::Journal, Some("trace"), |_| {
        tracing::error!(error = %"no room", "catalog is damaged");
        tracing::warn!(project = "lantern", "the project is paused");
        tracing::info!(site = "london", files = 3, "version placed");
        tracing::debug!("block");
        tracing::trace!("block");
    });
    let want = concat!(
        "<3>catalog is damaged error=no room\n",
        "<4>the project is paused project=\"lantern\"\n",
        "<6>version placed site=\"london\" files=3\n",
        "<7>block\n<7>block\n",
    );
    assert_eq!(lines, want);
}

#[test]
fn names_cannot_write_to_the_terminal() {
    for output in [PLAIN, Output::Json, Output::Journal] {
        assert_harmless(&logged(output, None, |_| tracing::info!(path = %HOSTILE, "file placed")));
        assert_harmless(&logged(output, None, |_| tracing::info!(path = ?HOSTILE, "file placed")));
        assert_harmless(&logged(output, None, |_| tracing::info!(path = HOSTILE, "file placed")));
        assert_harmless(&logged(output, None, |_| tracing::info!("{HOSTILE}")));
        assert_harmless(&logged(output, None, |_| {
            tracing::info_span!("place", path = %HOSTILE).in_scope(|| tracing::info!("file placed"));
        }));
    }
}

#[test]
fn json_keeps_the_very_name() {
    let line = logged(Output::Json, None, |_| tracing::info!(path = %HOSTILE, "file placed"));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&value["path"], &value["message"]), (&HOSTILE.into(), &"file placed".into()));
}

#[test]
fn a_long_value_is_cut() {
    let line = logged(PLAIN, None, |_| tracing::info!(path = %"x".repeat(1 << 20), "file placed"));
    assert!(line.len() < 5_000 && line.ends_with("x... (1044480 bytes more)\n"), "{}", line.len());
}

#[test]
fn colours_are_for_terminals() {
    let log = |_: &LogHandle| tracing::error!("catalog is damaged");
    assert!(!logged(PLAIN, None, log).contains('\x1b'));
    assert!(logged(Output::Text(Look::Coloured), None, log).contains('\x1b'));
}

#[test]
fn the_level_changes_while_the_daemon_runs() {
    let text = logged(PLAIN, None, |handle| {
        tracing::debug!("one");
        handle.set_level("avalond=debug").unwrap();
        tracing::debug!("two");
        assert!(matches!(handle.set_level("loud="), Err(LogError::BadLevel { .. })));
        tracing::debug!("three");
        handle.set_level("warn").unwrap();
        tracing::info!("four");
    });
    let seen: Vec<&str> =
        ["one", "two", "three", "four"].into_iter().filter(|word| text.contains(word)).collect();
    assert_eq!(seen, ["two", "three"]);
}

#[test]
fn the_variable_wins_over_the_configuration() {
    let text = logged(PLAIN, Some("debug"), |handle| {
        assert!(matches!(handle.set_level("warn"), Err(LogError::Overridden { level }) if level == "debug"));
        tracing::debug!("one");
    });
    assert!(text.contains("one"));
}

#[test]
fn a_wrong_level_names_where_it_stands() {
    let settings = Settings { level: Some("avalond=loud".into()), output: PLAIN };
    let error = settings.filter("info").unwrap_err();
    assert_eq!(
        error.to_string(),
        "AVALOND_LOG is not a log level such as info or avalond=debug: \"avalond=loud\""
    );
    let settings = Settings { level: None, output: PLAIN };
    for level in ["", "inof", "avalond", "avalond=", "info,", "info,quinn=maybe", "a=b=c", "avalond[=info"] {
        assert!(check_level(level).is_err(), "{level}");
        let error = settings.filter(level).expect_err(level);
        assert_eq!(
            error.to_string(),
            format!("log.level is not a log level such as info or avalond=debug: {level:?}")
        );
    }
    for level in ["off", "WARN", "info,quinn=warn", "avalond::net=trace, info", "avalond[place]=debug"] {
        assert!(settings.filter(level).is_ok(), "{level}");
    }
}

#[test]
fn the_journal_is_used_only_while_stderr_is_its_stream() {
    let stderr = FileId { device: 9, inode: 39_041 };
    assert!(started_by_journald(Some("9:39041"), stderr));
    for other in [None, Some(""), Some("9"), Some("9:39042"), Some("8:39041"), Some("9:39041:1"), Some("x:y")]
    {
        assert!(!started_by_journald(other, stderr), "{other:?}");
    }
}
