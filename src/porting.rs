//! From Perl's POE to lenore: every call under its old name, what a handler receives, whole programs side by side, and
//! what is different.
//!
//! "POE" means release 1.370 with its default settings. The guide has six parts:
//!
//! 1. [Every call](#every-call), in tables.
//! 2. [States and their arguments](#states-and-their-arguments): `@_`, object states, return values, `die`.
//! 3. [Three programs](#three-programs), in Perl and then in Rust.
//! 4. [The TCP components](#the-tcp-components): parameters, and a server side by side.
//! 5. [Differences](#differences), each with its reason.
//! 6. [Traces](#traces): the log targets that stand for `TRACE_*`, and [where to look](#when-nothing-happens) when something
//!    does not happen.
//!
//! The shortest way to port a program: make a struct of each session's `HEAP`, make each handler a function that takes
//! `cx: &mut Context<'_, ThatStruct>`, put `cx` wherever `$kernel` stood, and read the
//! [traps of arguments](#arguments) before the first run. Then go through the differences once.
#![doc = include_str!("porting/calls.md")]
#![doc = include_str!("porting/states.md")]
#![doc = include_str!("porting/programs.md")]
#![doc = include_str!("porting/components.md")]
#![doc = include_str!("porting/differences.md")]
#![doc = include_str!("porting/traces.md")]
