//! Times of day as text, always of the same width.

#[cfg(any(test, feature = "control"))]
use std::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends a time in UTC as RFC 3339 has it, with microseconds: `2026-11-28T23:31:39.000123Z`.
pub(crate) fn push(line: &mut String, time: SystemTime) {
    // A clock that is set before 1970 shows that year's beginning, and one after 9999 would need another width.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().min(LAST_SECOND);
    let (year, month, day) = date(seconds / SECONDS_OF_DAY);
    let second = seconds % SECONDS_OF_DAY;
    push_digits(line, year, 4);
    for (separator, number) in
        [('-', month), ('-', day), ('T', second / 3600), (':', second / 60 % 60), (':', second % 60)]
    {
        line.push(separator);
        push_digits(line, number, 2);
    }
    line.push('.');
    push_digits(line, u64::from(since.subsec_micros()), 6);
    line.push('Z');
}

/// Reads a time that [`push`] has written, as the time since 1970; `None` if it is not one.
#[cfg(any(test, feature = "control"))]
pub(crate) fn read(text: &str) -> Option<Duration> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second, micros) = (number(11, 13)?, number(14, 16)?, number(17, 19)?, number(20, 26)?);
    // As in `date`: years begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let (era, year) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day.checked_sub(1)?;
    let days = era * DAYS_OF_ERA + year * 365 + year / 4 - year / 100 + of_year;
    let seconds = days.checked_sub(DAYS_FROM_YEAR_0)? * SECONDS_OF_DAY + hour * 3600 + minute * 60 + second;
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

/// Year, month and day of a day, by its number since 1 January 1970.
///
/// Years are counted from March, so that the leap day is the last of a year, and in eras of 400 years, which have all the
/// same number of days.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + DAYS_FROM_YEAR_0;
    let (era, day) = (day / DAYS_OF_ERA, day % DAYS_OF_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// By hand, as `write!` is slow for so little and a line has seven numbers.
fn push_digits(line: &mut String, number: u64, digits: u32) {
    for place in (0..digits).rev() {
        line.push(char::from(b'0' + (number / 10_u64.pow(place) % 10) as u8));
    }
}

const SECONDS_OF_DAY: u64 = 86_400;

/// From 1 March of the year 0 to 1 January 1970.
const DAYS_FROM_YEAR_0: u64 = 719_468;

const DAYS_OF_ERA: u64 = 146_097;

/// The end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn text(nanos_since_epoch: u128) -> String {
        let seconds = u64::try_from(nanos_since_epoch / 1_000_000_000).unwrap();
        let mut line = String::new();
        push(&mut line, UNIX_EPOCH + Duration::new(seconds, (nanos_since_epoch % 1_000_000_000) as u32));
        line
    }

    #[test] // checked against GNU date
    fn times_have_the_calendar_s_date_and_always_27_characters() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_709_164_800, "2024-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (1_795_908_699, "2026-11-28T23:31:39.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
            (253_402_300_800, "9999-12-31T23:59:59.000000Z"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(text(seconds * 1_000_000_000), expected);
        }
        assert_eq!(text(1_000_001_999), "1970-01-01T00:00:01.000001Z");
        assert_eq!(text(1_999_999_999), "1970-01-01T00:00:01.999999Z");
    }

    #[test]
    fn time_that_was_written_can_be_read() {
        // Each day until 2105, at different times of the day.
        for day in 0..49_308_u64 {
            let since = Duration::from_micros(day * SECONDS_OF_DAY * 1_000_000 + day * 1_752_123 % 86_400_000_000);
            let mut line = String::new();
            push(&mut line, UNIX_EPOCH + since);
            assert_eq!(read(&line), Some(since), "{line}");
        }
        for wrong in
            ["", "2026-11-28", "2026-11-28T23:31:39Z", "1969-12-31T23:59:59.000000Z", "2026-11-00T00:00:00.000000Z"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = date(0);
        // As far as 2105, over a century that has no leap day.
        for number in 1..50_000 {
            let day @ (year, month, of_month) = date(number);
            let is_next = if of_month > 1 {
                day == (before.0, before.1, before.2 + 1)
            } else {
                let is_leap =
                    before.0.is_multiple_of(4) && (!before.0.is_multiple_of(100) || before.0.is_multiple_of(400));
                let last = [31, 28 + u64::from(is_leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][before.1 as usize - 1];
                before.2 == last && (year * 12 + month) == before.0 * 12 + before.1 + 1
            };
            assert!(is_next, "{day:?} after {before:?}");
            before = day;
        }
    }
}
