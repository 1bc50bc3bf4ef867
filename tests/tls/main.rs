//! TLS: the streams, the settings, and the servers and clients over them.

mod certificates;
mod peer;
mod settings;
mod stream;
