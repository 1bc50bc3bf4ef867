//! What the application reports: reading it, and refusing it.

use crate::daemon::board::Report;
use crate::daemon::error::DaemonError;
use crate::daemon::heap::Cx;
use crate::error::Result;
use crate::reply::Return;

/// Refuses a report. A `call` gets the error as its value. For a posted event, the error is in the log only.
pub(in crate::daemon) fn refuse<T>(cx: &mut Cx<'_>, error: DaemonError) -> Result<Return<Result<T, DaemonError>>> {
    let what = if matches!(error, DaemonError::UnknownStatus(_)) { "unknown" } else { "refused" };
    let caller = cx.caller();
    log_mistake(cx, log::Level::Error, what, format_args!("{error} (reported at {caller})"));
    Ok(Return(Err(error)))
}

/// Logs a mistake of the application. The application repeats the mistake with each request, so later ones from the same place are
/// logged at debug level. `what` tells the mistakes of one place apart.
pub(in crate::daemon) fn log_mistake(
    cx: &mut Cx<'_>,
    level: log::Level,
    what: &'static str,
    text: std::fmt::Arguments<'_>,
) {
    let mistake = (what, cx.caller());
    let mistakes = &mut cx.heap().mistakes;
    if mistakes.contains(&mistake) {
        log::debug!(target: "lenore::daemon", "{text}");
    } else {
        mistakes.push(mistake);
        log::log!(target: "lenore::daemon", level, "{text}; this process logs the next ones from there at debug level");
    }
}

/// Reads ARG0, which may be a [`Report`] or its word.
pub(in crate::daemon) fn read_report(cx: &mut Cx<'_>) -> Result<Report, DaemonError> {
    let word = if let Ok(report) = cx.arg::<Report>(0) {
        return Ok(*report);
    } else if let Ok(word) = cx.arg::<&'static str>(0) {
        (*word).to_owned()
    } else if let Ok(word) = cx.arg::<String>(0) {
        word.clone()
    } else {
        let found = cx.args().type_name(0).unwrap_or("nothing");
        return Err(DaemonError::UnknownStatus(format!("an argument of type {found}")));
    };
    word.parse().map_err(|_| DaemonError::UnknownStatus(word))
}
