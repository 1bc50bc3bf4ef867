//! The `Debug` forms of a kernel and a context: one line, without their contents. [`peek`](super::Context::peek) shows
//! those.

use std::fmt;

use super::{Calls, Context, Core, Kernel};

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("Kernel", &self.core, f)
    }
}

impl fmt::Debug for Calls<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show("Calls", self.core(), f)
    }
}

impl<H: 'static> fmt::Debug for Context<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (session, state) = (self.session(), self.state_name());
        f.debug_struct("Context").field("session", &session).field("state", &state).finish_non_exhaustive()
    }
}

fn show(name: &str, core: &Core, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_struct(name).field("id", &core.id).field("session", &core.session()).finish_non_exhaustive()
}
