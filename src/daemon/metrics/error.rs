//! Why a metric was not declared.

use std::fmt;
use std::io;

/// Why a metric was not declared.
///
/// Its `Debug` form is its text as well, as that of [`Error`](crate::Error).
#[non_exhaustive]
pub enum MetricError {
    /// The metric can't be shown under this name, or without a help text.
    Invalid {
        /// The metric.
        name: String,
        /// Which rule its declaration breaks.
        reason: &'static str,
    },
    /// A metric of this name is declared already, of another kind or with another help text.
    Redeclared {
        /// The metric.
        name: String,
    },
    /// The two metrics would be shown with a name in common: a histogram `x` has `x_sum`, and the counter `x_total` is of the family
    /// `x`. The other one may be the Daemon's own, whose names begin with [`metrics_prefix`](crate::daemon::DaemonBuilder::metrics_prefix).
    Clash {
        /// The metric.
        name: String,
        /// The metric that is there already.
        present: String,
    },
    /// Children were forked already. They would not have the metric.
    ChildrenForked {
        /// The metric.
        name: String,
    },
    /// This process is not the Daemon's parent. A child has the metrics that were declared before it was forked.
    NotTheParent {
        /// The metric.
        name: String,
    },
    /// There is no room for it.
    TooMany {
        /// The metric.
        name: String,
        /// How many numbers the metrics of a Daemon may have together. A histogram has 64, a counter or a gauge has one.
        limit: usize,
    },
    /// The system has no memory for the metrics.
    Memory(io::Error),
    /// The Daemon has ended, or its kernel belongs to another thread.
    Ended {
        /// The metric.
        name: String,
    },
}

impl fmt::Display for MetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricError::Invalid { name, reason } => write!(f, "metric {name:?} can't be declared: {reason}"),
            MetricError::Redeclared { name } => {
                write!(f, "metric {name} is declared already, of another kind or with another help text")
            }
            MetricError::Clash { name, present } => {
                write!(f, "metric {name} would be shown under a name that metric {present} has")
            }
            MetricError::ChildrenForked { name } => {
                write!(f, "metric {name} is declared too late: children were forked already, and would not have it")
            }
            MetricError::NotTheParent { name } => {
                write!(f, "metric {name} is declared in a process that is not the Daemon's parent")
            }
            MetricError::TooMany { name, limit } => {
                write!(
                    f,
                    "metric {name} is one too many: there is room for {limit} numbers, 64 of them for each histogram"
                )
            }
            MetricError::Memory(error) => write!(f, "making the memory for metrics: mmap: {error}"),
            MetricError::Ended { name } => write!(f, "metric {name} is declared for a Daemon that has ended"),
        }
    }
}

impl fmt::Debug for MetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for MetricError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MetricError::Memory(error) => Some(error),
            _ => None,
        }
    }
}
