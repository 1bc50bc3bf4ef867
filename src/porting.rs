//! From Perl's POE to lenore: every call under its old name, what a handler receives, whole programs side by side, and
//! the differences.
//!
//! "POE" means release 1.370 with its default settings. The guide has six modules:
//!
//! 1. [`calls`]: every call, in tables.
//! 2. [`states`]: states and their arguments: `@_`, object states, return values, `die`.
//! 3. [`programs`]: three programs, in Perl and then in Rust.
//! 4. [`components`]: the TCP components: parameters, and a server side by side.
//! 5. [`differences`]: each with its reason.
//! 6. [`traces`]: the log targets that replace `TRACE_*`, and [where to look](crate::guide::nothing_happens) when
//!    something does not happen.
//!
//! To port a program:
//!
//! 1. Make a struct of each session's `HEAP`.
//! 2. Make each handler a function that takes `cx: &mut Context<'_, ThatStruct>`, and put `cx` where `$kernel` was.
//! 3. Read the [traps of arguments](states#arguments) before the first run.
//! 4. Then read the differences once.

pub mod calls {
    #![doc = include_str!("porting/calls.md")]
}

pub mod components {
    #![doc = include_str!("porting/components.md")]
}

pub mod differences {
    #![doc = include_str!("porting/differences.md")]
}

pub mod programs {
    #![doc = include_str!("porting/programs.md")]
}

pub mod states {
    #![doc = include_str!("porting/states.md")]
}

pub mod traces {
    #![doc = include_str!("porting/traces.md")]
}
