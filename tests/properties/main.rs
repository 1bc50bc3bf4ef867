//! The queue, the session tree and the filters against naive models, under whatever proptest thinks of.

use lenore::filter::{Filter, FilterError};

mod block;
mod frame;
mod holds;
mod line;
mod order;
mod queue;
mod records;
mod streams;
mod tree;

/// Takes what there is, errors included, until the filter has no more.
fn drain<F: Filter>(filter: &mut F) -> Vec<Result<F::Input, FilterError>> {
    std::iter::from_fn(|| filter.get_one().transpose()).collect()
}
