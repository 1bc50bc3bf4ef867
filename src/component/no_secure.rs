//! Without the feature `tls` no connection is encrypted.

use std::os::fd::OwnedFd;

use super::connection::Connection;
use super::protocol::Protocol;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::Context;
use crate::wheel::{Failure, ReadWriteBuilder};

/// There is none.
#[derive(Clone)]
pub(super) enum Secure {}

/// There is none.
pub(super) enum Handshake {}

impl Secure {
    pub(super) fn check(&self, _: &str) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn stream<F: Filter>(&self, _: OwnedFd, _: F, _: &str) -> Result<(ReadWriteBuilder<F>, Handshake)> {
        match *self {}
    }
}

type Cx<'a, F, H> = Context<'a, Connection<F, H>>;

pub(super) fn ready<F: Filter, H: 'static>(_: &Protocol<F, H>, _: &mut Cx<'_, F, H>) -> Result {
    Ok(())
}

pub(super) fn take_failure<F: Filter, H: 'static>(_: &mut Cx<'_, F, H>, failure: Failure) -> Option<Failure> {
    Some(failure)
}
