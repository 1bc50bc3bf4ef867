//! The queue and the session tree against naive models, under whatever proptest thinks of.

mod properties {
    pub mod queue;
    pub mod tree;
}
