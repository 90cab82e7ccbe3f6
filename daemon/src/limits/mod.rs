//! [`Limits`]: the limits that hold here, those of the configuration and those that commands have set.
//!
//! The configuration's change by editing it. Those of commands are kept in `limits.json` in the state directory and are on
//! disk before they hold.

mod file;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avalon_protocol::{
    control::{ApiError, ErrorCode, Health, LimitItem, LimitOrigin, LimitRequest, Severity},
    limit::{BucketId, Direction, Limit},
};
use avalon_store::fs::Dir;

use self::file::{FileError, Kept};
use crate::{health::HealthBoard, log::ErrorChain, net::Throttle};

/// More than anybody keeps in mind; each one costs every piece of content a look.
const MAX_LIVE: usize = 64;

const UNREADABLE: &str = "limits-unreadable";

/// The limits of this node.
///
/// Every call may wait for the disk.
#[derive(Debug)]
pub struct Limits {
    throttle: Arc<Throttle>,
    dir: Dir,
    health: HealthBoard,
    book: Mutex<Book>,
}

#[derive(Debug, Clone)]
struct Book {
    configured: Vec<Limit>,
    live: Kept,
}

/// A limit with its name and its bucket.
#[derive(Debug, Clone)]
struct Entry<'a> {
    id: String,
    origin: LimitOrigin,
    bucket: BucketId,
    limit: &'a Limit,
}

impl Book {
    /// Returns all limits, those of the configuration first. Their buckets are the even numbers.
    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let configured = self.configured.iter().zip(0u32..).map(|(limit, number)| Entry {
            id: format!("config-{}", number + 1),
            origin: LimitOrigin::Config,
            bucket: number.saturating_mul(2),
            limit,
        });
        let live = self.live.limits.iter().map(|(number, limit)| Entry {
            id: number.to_string(),
            origin: LimitOrigin::Live,
            bucket: number.saturating_mul(2).saturating_add(1),
            limit,
        });
        configured.chain(live)
    }
}

impl Limits {
    /// Puts the limits of the configuration, and those that earlier commands have set, into force. A file of those that
    /// cannot be read is a matter of health, not of the start.
    pub fn open(dir: &Dir, throttle: Arc<Throttle>, configured: &[Limit], health: &HealthBoard) -> Self {
        let live = file::read(dir).unwrap_or_else(|error| {
            tracing::warn!(error = %ErrorChain(&error), "limits that were set by command are not in force");
            health.raise(unreadable(&error));
            Kept::default()
        });
        let book = Book { configured: configured.to_vec(), live };
        let limits = Self { throttle, dir: dir.clone(), health: health.clone(), book: Mutex::new(book) };
        limits.enforce(&limits.lock());
        limits
    }

    /// Returns what keeps to them.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// Replaces the limits of the configuration.
    pub fn configure(&self, configured: &[Limit]) {
        let mut book = self.lock();
        book.configured = configured.to_vec();
        self.enforce(&book);
    }

    /// Returns all limits and how they are doing.
    pub fn list(&self) -> Vec<LimitItem> {
        self.items(&self.lock(), |_| true)
    }

    /// Sets a limit, in both directions when none is named, and returns what was set. One with the same direction, site,
    /// class and times gets the new rate.
    ///
    /// # Errors
    /// [`ErrorCode::BadLimit`] says what is written wrongly; when it cannot be kept, nothing has changed.
    pub fn set(&self, request: &LimitRequest) -> Result<Vec<LimitItem>, ApiError> {
        let wanted = read(request)?;
        let mut book = self.lock();
        let mut changed = book.clone();
        let numbers: Vec<u32> = wanted.into_iter().map(|limit| changed.live.put(limit)).collect();
        if changed.live.limits.len() > MAX_LIVE {
            return Err(bad(format!("there are {MAX_LIVE} limits already"))
                .with_hint("clear some: avalonctl limit clear ID, or --all"));
        }
        self.change(&mut book, changed)?;
        let is_new = |entry: &Entry<'_>| {
            entry.origin == LimitOrigin::Live && numbers.iter().any(|number| entry.id == number.to_string())
        };
        Ok(self.items(&book, is_new))
    }

    /// Clears one limit that a command has set, or all of them, and returns what was cleared.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] when there is no such limit, [`ErrorCode::BadLimit`] when it is of the configuration; when
    /// the change cannot be kept, nothing has changed.
    pub fn clear(&self, id: Option<&str>) -> Result<Vec<LimitItem>, ApiError> {
        let mut book = self.lock();
        let is_meant = |entry: &Entry<'_>| id.map_or(entry.origin == LimitOrigin::Live, |id| entry.id == id);
        let items = self.items(&book, is_meant);
        if let Some(id) = id {
            let Some(item) = items.first() else {
                return Err(ApiError::new(ErrorCode::NotFound, format!("there is no limit {id}"))
                    .with_hint("list them: avalonctl limit"));
            };
            if item.origin == LimitOrigin::Config {
                return Err(bad(format!("limit {id} stands in the configuration"))
                    .with_hint("edit the configuration and reload: systemctl reload avalond"));
            }
        }
        if items.is_empty() {
            return Ok(items);
        }
        let mut changed = book.clone();
        changed.live.limits.retain(|number, _| !items.iter().any(|item| item.id == number.to_string()));
        self.change(&mut book, changed)?;
        Ok(items)
    }

    /// Keeps a change, and puts it into force once it is on disk.
    fn change(&self, book: &mut Book, changed: Book) -> Result<(), ApiError> {
        file::write(&self.dir, &changed.live).map_err(|error| {
            let code = if error.is_no_space() { ErrorCode::DiskFull } else { ErrorCode::Internal };
            ApiError::new(
                code,
                format!("the limits cannot be kept, nothing has changed: {}", ErrorChain(&error)),
            )
            .with_hint("check the disk of the state directory")
        })?;
        *book = changed;
        self.health.clear(UNREADABLE);
        self.enforce(book);
        Ok(())
    }

    fn enforce(&self, book: &Book) {
        self.throttle.set(book.entries().map(|entry| (entry.bucket, entry.limit.clone())));
    }

    fn items(&self, book: &Book, wanted: impl Fn(&Entry<'_>) -> bool) -> Vec<LimitItem> {
        let readings = self.throttle.readings();
        let item = |entry: Entry<'_>| {
            let reading = readings.get(&entry.bucket);
            let Limit { rate, direction, site, class, when } = entry.limit;
            LimitItem {
                id: entry.id,
                origin: entry.origin,
                rate: rate.to_string(),
                rate_bytes_per_second: rate.bytes_per_second,
                direction: *direction,
                site: site.as_ref().map(ToString::to_string),
                class: class.map(Into::into),
                when: when.to_string(),
                holds: reading.is_some_and(|reading| reading.holds),
                bytes_per_second: reading.map_or(0.0, |reading| reading.bytes_per_second),
            }
        };
        book.entries().filter(wanted).map(item).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // A change is made on a copy.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what was asked for: one limit for each direction.
fn read(request: &LimitRequest) -> Result<Vec<Limit>, ApiError> {
    let rate = request.rate.parse().map_err(|error| bad(ErrorChain(&error).to_string()))?;
    let when = request.when.as_deref().unwrap_or("always");
    let when = when.parse().map_err(|error| bad(ErrorChain(&error).to_string()))?;
    let site = request.site.as_deref().map(str::parse).transpose();
    let site = site.map_err(|error| bad(ErrorChain(&error).to_string()))?;
    let class = request.class.map(Into::into);
    let directions = request.direction.map_or(Direction::ALL.to_vec(), |direction| vec![direction]);
    let limits = directions.into_iter();
    Ok(limits.map(|direction| Limit { rate, direction, site: site.clone(), class, when }).collect())
}

fn bad(message: String) -> ApiError {
    ApiError::new(ErrorCode::BadLimit, message)
}

fn unreadable(error: &FileError) -> Health {
    Health {
        code: UNREADABLE.into(),
        severity: Severity::Warning,
        message: format!("limits that were set by command are not in force: {}", ErrorChain(error)),
        hint: Some("set them again: avalonctl limit set; the file is replaced then".into()),
    }
}

#[cfg(test)]
mod tests;
