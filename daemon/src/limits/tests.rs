//! Limits that come and go.

use avalon_protocol::limit::Class;
use tempfile::TempDir;

use super::*;
use crate::{clock::ManualClock, events::EventBus};

struct World {
    temp: TempDir,
    health: HealthBoard,
}

impl World {
    fn new() -> Self {
        let health = HealthBoard::new(EventBus::new(Arc::new(ManualClock::new())));
        Self { temp: tempfile::tempdir().unwrap(), health }
    }

    fn open(&self, configured: &[Limit]) -> Limits {
        let me = "a@london".parse().unwrap();
        let throttle = Arc::new(Throttle::new(me, Arc::new(ManualClock::new())));
        Limits::open(&Dir::open(self.temp.path()).unwrap(), throttle, configured, &self.health)
    }
}

fn request(rate: &str) -> LimitRequest {
    LimitRequest { rate: rate.into(), direction: None, site: None, class: None, when: None }
}

fn configured() -> Limit {
    Limit {
        rate: "1Gbit/s".parse().unwrap(),
        direction: Direction::Send,
        site: None,
        class: None,
        when: "always".parse().unwrap(),
    }
}

fn shown(items: &[LimitItem]) -> Vec<String> {
    items.iter().map(|item| format!("{} {} {}", item.id, item.rate, item.direction)).collect()
}

#[test]
fn what_commands_set_is_kept_over_restarts_and_numbers_are_not_used_again() {
    let world = World::new();
    let limits = world.open(&[configured()]);
    assert_eq!(shown(&limits.set(&request("4MiB/s")).unwrap()), ["1 4MiB/s send", "2 4MiB/s receive"]);
    let montreal = LimitRequest {
        site: Some("montreal".into()),
        class: Some(Class::Backfill),
        direction: Some(Direction::Send),
        when: Some("mon-fri 09:00-19:00".into()),
        ..request("0")
    };
    limits.set(&montreal).unwrap();
    assert_eq!(shown(&limits.clear(Some("2")).unwrap()), ["2 4MiB/s receive"]);
    drop(limits);
    let limits = world.open(&[configured()]);
    let list = limits.list();
    assert_eq!(shown(&list), ["config-1 1Gbit/s send", "1 4MiB/s send", "3 0 send"]);
    let last = &list[2];
    assert_eq!((last.site.as_deref(), last.class), (Some("montreal"), Some(Class::Backfill)));
    assert_eq!(last.when, "mon,tue,wed,thu,fri 09:00-19:00");
    assert_eq!(shown(&limits.clear(None).unwrap()), ["1 4MiB/s send", "3 0 send"]);
    assert_eq!(shown(&limits.set(&request("1MiB/s")).unwrap()), ["4 1MiB/s send", "5 1MiB/s receive"]);
    assert!(world.health.items().is_empty());
}

#[test]
fn the_same_limit_with_another_rate_takes_its_place() {
    let world = World::new();
    let limits = world.open(&[]);
    limits.set(&request("4MiB/s")).unwrap();
    let send = LimitRequest { direction: Some(Direction::Send), ..request("8MiB/s") };
    assert_eq!(shown(&limits.set(&send).unwrap()), ["1 8MiB/s send"]);
    assert_eq!(shown(&limits.list()), ["1 8MiB/s send", "2 4MiB/s receive"]);
    limits.configure(&[configured()]);
    assert_eq!(limits.list().len(), 3);
}

#[test]
fn limits_of_the_configuration_are_cleared_there() {
    let world = World::new();
    let limits = world.open(&[configured()]);
    let error = limits.clear(Some("config-1")).unwrap_err();
    assert_eq!(error.code, ErrorCode::BadLimit);
    assert!(error.hint.unwrap().contains("edit the configuration"));
    assert!(limits.clear(None).unwrap().is_empty());
    assert_eq!(limits.list().len(), 1);
    assert_eq!(limits.clear(Some("9")).unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn what_is_written_wrongly_changes_nothing() {
    let world = World::new();
    let limits = world.open(&[]);
    let wrong = [
        request("fast"),
        LimitRequest { site: Some("a b".into()), ..request("1MB/s") },
        LimitRequest { when: Some("someday".into()), ..request("1MB/s") },
    ];
    for wrong in wrong {
        assert_eq!(limits.set(&wrong).unwrap_err().code, ErrorCode::BadLimit, "{wrong:?}");
    }
    for number in 0..MAX_LIVE / 2 {
        limits.set(&LimitRequest { site: Some(format!("site{number}")), ..request("1MB/s") }).unwrap();
    }
    let error = limits.set(&request("1MB/s")).unwrap_err();
    assert!(error.message.contains("64 limits already"), "{error}");
    assert_eq!(limits.list().len(), MAX_LIVE);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody damages the file")]
fn a_damaged_file_is_a_warning_until_the_next_change() {
    for damaged in ["", "{", "{\"schema\":\"avalond.limits/2\",\"last\":0,\"limits\":[]}"] {
        let world = World::new();
        std::fs::write(world.temp.path().join("limits.json"), damaged).unwrap();
        let limits = world.open(&[configured()]);
        let items = world.health.items();
        assert_eq!((items.len(), items[0].code.as_str()), (1, "limits-unreadable"), "{damaged:?}");
        assert_eq!(limits.list().len(), 1);
        limits.set(&request("1MB/s")).unwrap();
        assert!(world.health.items().is_empty());
        assert_eq!(world.open(&[]).list().len(), 2);
    }
}
