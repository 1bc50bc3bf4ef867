//! Pages on a subject each, for programs that use several parts of the crate.
//!
//! | you want to | page |
//! | --- | --- |
//! | do something beside the server: each hour, a cache, metrics | [`background`] |
//! | write a component that others use | [`components`] |
//! | find out why nothing happens, or why the program does not end | [`nothing_happens`] |
//! | know what a child has of the memory of its parent | [`memory`] |
//! | use a library that starts threads | [`threads`] |
//! | serve datagrams with a pool of children | [`udp`] |
//! | run a server under systemd, in a container or behind a load balancer | [`deploying`] |
//! | search the log for a line, and know what it means | [`log_lines`] |
//! | test a program with timeouts, retries, streams or forks | the module `testing`, with the feature of that name |
//!
//! POE: `POE::Component::Daemon` and `POE::Kernel` tell of these subjects in their sections on caveats.

pub mod background {
    #![doc = include_str!("background.md")]
}
pub mod components {
    #![doc = include_str!("components.md")]
}
pub mod deploying {
    #![doc = include_str!("deploying.md")]
}
pub mod log_lines {
    #![doc = include_str!("log_lines.md")]
}
pub mod memory {
    #![doc = include_str!("memory.md")]
}
pub mod nothing_happens {
    #![doc = include_str!("nothing_happens.md")]
}
pub mod threads {
    #![doc = include_str!("threads.md")]
}
pub mod udp {
    #![doc = include_str!("udp.md")]
}
