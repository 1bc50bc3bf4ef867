//! Why a metric was not declared.

use std::fmt;
use std::io;

/// Why a metric was not declared.
///
/// `Debug` writes the same text as `Display`, as for [`Error`](crate::Error).
#[non_exhaustive]
pub enum MetricError {
    /// The name breaks a rule of Prometheus or is reserved for the Daemon, or the help text is empty.
    Invalid {
        /// The name of the metric.
        name: String,
        /// Which rule the declaration breaks.
        reason: &'static str,
    },
    /// A metric of this name is already declared, with another kind or another help text.
    Redeclared {
        /// The name of the metric.
        name: String,
    },
    /// Two metrics would be shown under the same name. For example, a histogram `x` is also shown as `x_sum`, and a counter `x_total`
    /// also as `x`.
    ///
    /// The other metric may be one of the Daemon's own. Their names begin with
    /// [`metrics_prefix`](crate::daemon::DaemonBuilder::metrics_prefix).
    Clash {
        /// The name of the metric.
        name: String,
        /// The name of the metric that already exists.
        present: String,
    },
    /// Children were already forked. They would not have the metric.
    ChildrenForked {
        /// The name of the metric.
        name: String,
    },
    /// This process is not the Daemon's parent. A child has only the metrics that were declared before the child was forked.
    NotTheParent {
        /// The name of the metric.
        name: String,
    },
    /// There is no room for the metric.
    TooMany {
        /// The name of the metric.
        name: String,
        /// How many numbers the metrics of a Daemon have room for together. A histogram takes 64, a counter or a gauge takes one.
        limit: usize,
    },
    /// The system refused the memory for the metrics.
    Memory(io::Error),
    /// The Daemon has ended, or its kernel belongs to another thread.
    Ended {
        /// The name of the metric.
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
                    "metric {name} does not fit: all metrics have room for {limit} numbers, and a histogram takes 64"
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
