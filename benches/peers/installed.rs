//! The programs that are measured, as an operator would have them.

use std::fs;

use util::{Program, Running};

/// Starts a copy of the built example `name`, in the directory `installed` beside it.
///
/// The copy is what `install` makes of a program. It matters to a server that forks: the linker writes a program in pieces, so the
/// system keeps it in small pages, and each child maps them one by one. A program that was written in one go is kept in large ones.
pub fn start(name: &str, args: &[&str]) -> Running {
    let built = util::example(name);
    let directory = built.with_file_name("installed");
    fs::create_dir_all(&directory).expect("a directory beside the examples");
    let installed = directory.join(name);
    // A new file each time: a running program can't be written to.
    let _ = fs::remove_file(&installed);
    fs::copy(&built, &installed).expect("a copy of an example");
    Program::new(installed).args(args).start()
}
