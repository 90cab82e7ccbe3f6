//! Times of the week: `mon-fri 09:00-19:00`.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use super::InvalidLimit;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY_MINUTES: u16 = 24 * 60;
const WEEK_MINUTES: u32 = 7 * 24 * 60;

/// A moment of the week, on the wall clock of the node's site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The day, from 0 for Monday to 6 for Sunday.
    pub day: u8,
    /// The minute of the day, from 0 to 1,439.
    pub minute: u16,
}

/// The times of the week at which a limit holds. It reads and prints as days and hours: `mon-fri 09:00-19:00`,
/// `sat,sun`, `22:00-06:00`, `always`. Hours that end before they begin go over midnight, and belong to the day on which
/// they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// One bit for each day, Monday the lowest.
    days: u8,
    /// The first minute, and the one after the last; the whole day is 0 to 1,440.
    from: u16,
    until: u16,
}

impl When {
    /// All the time.
    pub const ALWAYS: Self = Self { days: 0x7f, from: 0, until: DAY_MINUTES };

    /// Says whether a moment is within.
    pub fn contains(&self, moment: Moment) -> bool {
        let on = |day: u8| self.days & (1 << (day % 7)) != 0;
        let minute = moment.minute;
        if self.from < self.until {
            return on(moment.day) && (self.from..self.until).contains(&minute);
        }
        (on(moment.day) && minute >= self.from) || (on(moment.day + 6) && minute < self.until)
    }

    /// Returns in how many minutes it begins or ends next, at least 1; `None` when it never does. Minutes of the week are
    /// counted as if all hours had sixty of them: who waits over a change to or from summer time looks again an hour early.
    pub fn minutes_until_change(&self, moment: Moment) -> Option<u32> {
        let now = self.contains(moment);
        let day = u32::from(DAY_MINUTES);
        // It begins or ends at one of its own times, or with a day that is named beside one that is not.
        let edges = (0..=8).flat_map(|days: u32| {
            [0, u32::from(self.from), u32::from(self.until)].map(|edge| days * day + edge)
        });
        let ahead =
            edges.filter_map(|edge| edge.checked_sub(u32::from(moment.minute))).filter(|ahead| *ahead > 0);
        ahead.filter(|ahead| self.contains(moment.after(*ahead)) != now).min()
    }
}

impl Moment {
    /// Returns the moment that is so many minutes later; the week begins again after Sunday.
    #[must_use]
    pub fn after(self, minutes: u32) -> Self {
        let all =
            u32::from(self.day) * u32::from(DAY_MINUTES) + u32::from(self.minute) + minutes % WEEK_MINUTES;
        let (day, minute) = (all / u32::from(DAY_MINUTES) % 7, all % u32::from(DAY_MINUTES));
        Self { day: u8::try_from(day).unwrap_or(0), minute: u16::try_from(minute).unwrap_or(0) }
    }
}

impl Default for When {
    fn default() -> Self {
        Self::ALWAYS
    }
}

impl FromStr for When {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = || InvalidLimit::When { text: text.to_owned() };
        let mut when = Self::ALWAYS;
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["always"] => {}
            [days, hours] => {
                when.days = read_days(days).ok_or_else(invalid)?;
                (when.from, when.until) = read_hours(hours).ok_or_else(invalid)?;
            }
            [word] => match (read_days(word), read_hours(word)) {
                (Some(days), _) => when.days = days,
                (None, Some(hours)) => (when.from, when.until) = hours,
                (None, None) => return Err(invalid()),
            },
            _ => return Err(invalid()),
        }
        Ok(when)
    }
}

fn read_days(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|known| known.eq_ignore_ascii_case(name));
    let mut days = 0;
    for part in text.split(',') {
        let range: RangeInclusive<usize> = match part.split_once('-') {
            Some((first, last)) => day(first)?..=day(last)?,
            None => day(part)?..=day(part)?,
        };
        // `sat-mon` goes over the end of the week.
        let (first, mut last) = range.into_inner();
        last += if last < first { 7 } else { 0 };
        (first..=last).for_each(|day| days |= 1 << (day % 7));
    }
    Some(days)
}

fn read_hours(text: &str) -> Option<(u16, u16)> {
    let (from, until) = text.split_once('-')?;
    let (from, until) = (read_time(from)?, read_time(until)?);
    (from != until && from < DAY_MINUTES).then_some((from, until))
}

fn read_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| if text.len() == 2 { text.parse::<u16>().ok() } else { None };
    let time = number(hours)? * 60 + number(minutes).filter(|minutes| *minutes < 60)?;
    (time <= DAY_MINUTES).then_some(time)
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all_days = self.days == Self::ALWAYS.days;
        let all_day = (self.from, self.until) == (0, DAY_MINUTES);
        if all_days && all_day {
            return f.write_str("always");
        }
        if !all_days {
            let names: Vec<&str> = DAYS
                .iter()
                .enumerate()
                .filter(|(day, _)| self.days & (1 << day) != 0)
                .map(|(_, name)| *name)
                .collect();
            f.write_str(&names.join(","))?;
        }
        if !all_day {
            let space = if all_days { "" } else { " " };
            let (from, until) = (self.from, self.until);
            write!(f, "{space}{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(text: &str) -> When {
        text.parse().unwrap()
    }

    fn at(day: &str, hours: u16, minutes: u16) -> Moment {
        let day = DAYS.iter().position(|name| *name == day).unwrap();
        Moment { day: u8::try_from(day).unwrap(), minute: hours * 60 + minutes }
    }

    #[test]
    fn office_hours_begin_and_end_on_the_minute() {
        let office = when("mon-fri 09:00-19:00");
        assert!(office.contains(at("mon", 9, 0)) && office.contains(at("fri", 18, 59)));
        assert!(!office.contains(at("mon", 8, 59)) && !office.contains(at("fri", 19, 0)));
        assert!(!office.contains(at("sat", 12, 0)));
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = when("fri 22:00-06:00");
        assert!(night.contains(at("fri", 23, 0)) && night.contains(at("sat", 5, 59)));
        assert!(!night.contains(at("fri", 5, 0)) && !night.contains(at("sat", 23, 0)));
        assert!(when("sun 22:00-06:00").contains(at("mon", 1, 0)), "over the end of the week");
    }

    #[test]
    fn the_next_change_is_the_first_minute_that_differs() {
        for text in ["mon-fri 09:00-19:00", "fri 22:00-06:00", "sat,sun", "22:00-06:00", "sun 12:00-24:00"] {
            let when = when(text);
            for start in (0..WEEK_MINUTES).step_by(7) {
                let moment = at("mon", 0, 0).after(start);
                let differs = |ahead: &u32| when.contains(moment.after(*ahead)) != when.contains(moment);
                let slow = (1..=WEEK_MINUTES).find(differs);
                assert_eq!(when.minutes_until_change(moment), slow, "{text} at {moment:?}");
            }
        }
        assert_eq!(When::ALWAYS.minutes_until_change(at("wed", 3, 4)), None);
        assert_eq!(at("sun", 23, 59).after(1), at("mon", 0, 0));
    }

    #[test]
    fn it_prints_as_it_reads() {
        for text in ["always", "mon,tue,wed,thu,fri 09:00-19:00", "sat,sun", "22:00-06:00", "mon 00:00-24:00"]
        {
            let printed = when(text).to_string();
            assert_eq!(when(&printed), when(text), "{text} as {printed}");
        }
        assert_eq!(when("sat-mon"), when("mon,sat,sun"));
        for bad in [
            "",
            "someday",
            "09:00",
            "9:00-10:00",
            "25:00-26:00",
            "10:00-10:00",
            "mon tue",
            "09:00-19:00 mon",
            "12:60-13:00",
        ] {
            let error = bad.parse::<When>().unwrap_err();
            assert!(error.to_string().contains("mon-fri 09:00-19:00"), "{error}");
        }
    }
}
