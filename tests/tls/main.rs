//! TLS: the streams, the settings, and the servers and clients over them.

mod certificates;
mod components;
mod peer;
mod processes;
mod settings;
mod stream;
