//! Removing variables from the environment.

use std::env;

use super::threads::{NotAlone, make_sure_alone};

/// Removes variables, so that programs which this process starts do not have them.
///
/// # Errors
///
/// The process has more than one thread, or it is not known that it has one. Nothing is removed then.
pub(crate) fn remove(names: &[&str]) -> Result<(), NotAlone> {
    make_sure_alone()?;
    for name in names {
        // SAFETY: another thread could read the environment by a C function meanwhile, which takes no lock. There is no other
        // thread: `make_sure_alone` has just found this one alone, and only a thread of this process can start another one.
        // Where the system does not tell, the documentation of `Kernel::new` asks the caller for it.
        unsafe { env::remove_var(name) };
    }
    Ok(())
}
