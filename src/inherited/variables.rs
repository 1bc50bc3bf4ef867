//! Reading `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`: which descriptors were passed to this process, by which names.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;

use crate::error::Error;

/// A variable whose value is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) variable: &'static str,
    pub(super) value: OsString,
    pub(super) reason: String,
}

impl Invalid {
    pub(super) fn new(variable: &'static str, value: &OsStr, reason: impl Into<String>) -> Invalid {
        Invalid { variable, value: value.to_owned(), reason: reason.into() }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Error {
        let Invalid { variable, value, reason } = invalid;
        Error::InvalidEnvironment { variable, value: value.to_string_lossy().into_owned(), reason }
    }
}

/// The descriptors that were passed to this process.
#[derive(Debug, Default)]
pub(super) struct Passed {
    count: RawFd,
    /// `None` if the launcher has given no names.
    names: Option<Vec<String>>,
}

impl Passed {
    /// Returns each descriptor with its name. The launcher may say any number, so this is made as far as it is asked for.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, RawFd)> {
        let name = |at: usize| self.names.as_ref().and_then(|names| names.get(at)).map_or(UNKNOWN, String::as_str);
        (FIRST..FIRST + self.count).enumerate().map(move |(at, fd)| (name(at), fd))
    }
}

/// Returns each descriptor that was passed to the process `pid`, with its name. `get` reads a variable.
///
/// As sd_listen_fds(3) has it, nothing was passed without `LISTEN_PID`, or with that of another process. `LISTEN_FDS=0` means
/// none, which is an error there.
///
/// # Errors
///
/// The first variable that makes no sense.
pub(super) fn parse<'a>(get: impl Fn(&str) -> Option<&'a OsStr>, pid: u32) -> Result<Passed, Invalid> {
    let Some(text) = get(PID) else { return Ok(Passed::default()) };
    let addressee = number(text).filter(|pid| *pid > 0).ok_or_else(|| Invalid::new(PID, text, "not a process id"))?;
    if u32::try_from(addressee) != Ok(pid) {
        return Ok(Passed::default());
    }
    let Some(text) = get(FDS) else { return Ok(Passed::default()) };
    let last = |count: RawFd| count.checked_add(FIRST);
    let count = number(text).filter(|count| last(*count).is_some());
    let count = count.ok_or_else(|| Invalid::new(FDS, text, "not a number of descriptors"))?;
    let names = get(FD_NAMES).map(|text| names(text, count)).transpose()?;
    Ok(Passed { count, names })
}

/// Reads the names of `count` descriptors, separated by colons.
fn names(text: &OsStr, count: RawFd) -> Result<Vec<String>, Invalid> {
    let fail = |reason: String| Invalid::new(FD_NAMES, text, reason);
    let names = text.to_str().ok_or_else(|| fail("not UTF-8".to_owned()))?;
    let names: Vec<&str> = if names.is_empty() && count == 0 { Vec::new() } else { names.split(':').collect() };
    if usize::try_from(count) != Ok(names.len()) {
        return Err(fail(format!("{} names, for {FDS}={count}", names.len())));
    }
    let is_name = |name: &&str| name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err(fail(format!("{name:?} can't be a name"))),
        None => Ok(names.into_iter().map(str::to_owned).collect()),
    }
}

/// Tells whether a launcher can pass a socket by this name: as systemd has it, printable ASCII without a colon.
pub(crate) fn is_name(name: &str) -> bool {
    let is_fit = |octet: u8| (b' '..0x7f).contains(&octet) && octet != b':';
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_fit)
}

/// Reads digits: no sign, no blank.
fn number(text: &OsStr) -> Option<RawFd> {
    let text = text.to_str()?;
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
}

pub(super) const PID: &str = "LISTEN_PID";
pub(super) const FDS: &str = "LISTEN_FDS";
const FD_NAMES: &str = "LISTEN_FDNAMES";

/// `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// The name of a socket to which the launcher has given none.
const UNKNOWN: &str = "unknown";

/// systemd's limit.
const LONGEST_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check;

    const OWN: u32 = 4711;

    fn parsed(pid: Option<&str>, fds: Option<&str>, names: Option<&str>) -> Result<Vec<(String, RawFd)>, Invalid> {
        let get = |name: &str| match name {
            "LISTEN_PID" => pid,
            "LISTEN_FDS" => fds,
            "LISTEN_FDNAMES" => names,
            other => panic!("{other}"),
        };
        let passed = parse(|name| get(name).map(OsStr::new), OWN)?;
        Ok(passed.each().map(|(name, fd)| (name.to_owned(), fd)).collect())
    }

    fn pairs(wanted: &[(&str, RawFd)]) -> Vec<(String, RawFd)> {
        wanted.iter().map(|(name, fd)| ((*name).to_owned(), *fd)).collect()
    }

    #[test] // O-SD-05: not for us, silently
    fn sockets_of_another_process_are_none() {
        for pid in [None, Some("4712"), Some("1")] {
            assert_eq!(parsed(pid, Some("2"), Some("a:b")), Ok(Vec::new()));
            // What is another's need not make sense.
            assert_eq!(parsed(pid, Some("many"), Some("a:b:c")), Ok(Vec::new()));
        }
        assert_eq!(parsed(Some("4711"), None, Some("a")), Ok(Vec::new()));
        assert_eq!(parsed(None, None, None), Ok(Vec::new()));
    }

    #[test] // O-SD-13
    fn names_go_with_the_descriptors_from_3_on() {
        assert_eq!(parsed(Some("4711"), Some("2"), None), Ok(pairs(&[("unknown", 3), ("unknown", 4)])));
        let names = Some("http:admin:http");
        assert_eq!(parsed(Some("4711"), Some("3"), names), Ok(pairs(&[("http", 3), ("admin", 4), ("http", 5)])));
        assert_eq!(parsed(Some("4711"), Some("1"), Some("")), Ok(pairs(&[("", 3)])));
        assert_eq!(parsed(Some("4711"), Some("0"), Some("")), Ok(Vec::new()));
    }

    #[test] // O-SD-05
    fn bad_value_is_named_with_its_variable() {
        let long = "x".repeat(256);
        for (pid, fds, names, variable, value) in [
            ("abc", "1", None, "LISTEN_PID", "abc"),
            ("", "1", None, "LISTEN_PID", ""),
            ("0", "1", None, "LISTEN_PID", "0"),
            ("-4711", "1", None, "LISTEN_PID", "-4711"),
            ("4711", "-1", None, "LISTEN_FDS", "-1"),
            ("4711", "", None, "LISTEN_FDS", ""),
            ("4711", " 1", None, "LISTEN_FDS", " 1"),
            ("4711", "+1", None, "LISTEN_FDS", "+1"),
            ("4711", "2147483645", None, "LISTEN_FDS", "2147483645"),
            ("4711", "99999999999", None, "LISTEN_FDS", "99999999999"),
            ("4711", "2", Some("a"), "LISTEN_FDNAMES", "a"),
            ("4711", "1", Some("a:b"), "LISTEN_FDNAMES", "a:b"),
            ("4711", "1", Some("a\nb"), "LISTEN_FDNAMES", "a\nb"),
            ("4711", "1", Some(long.as_str()), "LISTEN_FDNAMES", long.as_str()),
        ] {
            let invalid = parsed(Some(pid), Some(fds), names).unwrap_err();
            assert_eq!((invalid.variable, invalid.value.to_str()), (variable, Some(value)));
            let said = Error::from(invalid).to_string();
            assert!(said.starts_with(&format!("{variable}={value}: ")), "{said}");
        }
    }

    /// The same by a slower way, which goes by what is said of each variable.
    fn model(pid: Option<&str>, fds: Option<&str>, names: Option<&str>) -> Result<Vec<(String, RawFd)>, &'static str> {
        let number = |text: &str| -> Option<u64> {
            let mut value = 0u64;
            for octet in text.bytes() {
                value = value.checked_mul(10)?.checked_add(u64::from((octet as char).to_digit(10)?))?;
            }
            (!text.is_empty()).then_some(value)
        };
        let Some(pid) = pid else { return Ok(Vec::new()) };
        match number(pid) {
            None | Some(0) => return Err("LISTEN_PID"),
            Some(pid) if pid > i32::MAX as u64 => return Err("LISTEN_PID"),
            Some(pid) if pid != u64::from(OWN) => return Ok(Vec::new()),
            Some(_) => {}
        }
        let Some(fds) = fds else { return Ok(Vec::new()) };
        let Some(count) = number(fds).filter(|count| count + 3 <= i32::MAX as u64) else { return Err("LISTEN_FDS") };
        let mut passed = Vec::new();
        let mut given = names.map(|names| names.split(':').map(str::to_owned).collect::<Vec<_>>());
        if count == 0 && names == Some("") {
            given = Some(Vec::new());
        }
        for at in 0..count {
            let name = match &given {
                None => "unknown".to_owned(),
                Some(given) => given.get(at as usize).ok_or("LISTEN_FDNAMES")?.clone(),
            };
            if name.contains('\t') {
                return Err("LISTEN_FDNAMES");
            }
            passed.push((name, 3 + at as RawFd));
        }
        if given.is_some_and(|given| given.len() as u64 != count) { Err("LISTEN_FDNAMES") } else { Ok(passed) }
    }

    #[test] // O-SD-05, O-SD-13
    fn variables_are_read_as_the_model_reads_them() {
        const PIDS: [Option<&str>; 7] =
            [Some("4711"), Some("4711"), Some("04711"), Some("12"), Some("x"), Some("9999999999"), None];
        const FDS: [Option<&str>; 8] =
            [Some("0"), Some("1"), Some("2"), Some("3"), Some("2147483646"), Some("-1"), Some("1 "), None];
        const NAMES: [Option<&str>; 8] =
            [None, Some(""), Some("a"), Some("a:b"), Some("a:"), Some(":"), Some("a:a:b"), Some("a:\t")];
        check(|dice| {
            for _ in 0..20 {
                let (pid, fds, names) = (dice.pick(&PIDS), dice.pick(&FDS), dice.pick(&NAMES));
                let (got, wanted) = (parsed(pid, fds, names), model(pid, fds, names));
                assert_eq!(got.map_err(|invalid| invalid.variable), wanted, "{pid:?} {fds:?} {names:?}");
            }
        });
    }
}
