//! Follows the file that it is told, with a child that inherits all of it and ends. Ends after a line.

use std::path::PathBuf;
use std::time::Duration;

use lenore::filter::Line;
use lenore::wheel::FollowTail;
use lenore::{Kernel, Session};

fn main() -> Result<(), lenore::Error> {
    let path = PathBuf::from(std::env::args_os().nth(1).expect("a path"));
    let mut kernel = Kernel::new()?;
    Session::new(None::<FollowTail<Line>>)
        .state("_start", move |cx| {
            let builder = FollowTail::path(&path, Line::new()).poll_interval(Duration::from_secs(1000));
            *cx.heap() = Some(builder.on_input("line").on_idle("idle").start(cx)?);
            Ok(())
        })
        // Waiting: everything that there is to inherit is there.
        .state("idle", |cx| {
            cx.heap().iter().for_each(|wheel| wheel.event_clear(lenore::wheel::TailEvent::Idle));
            cx.fork("parent", "child", ())
        })
        .state("parent", |cx| {
            let pid = cx.take::<Result<i32, lenore::Error>>(0)??;
            cx.sig_child(pid, "ended", ());
            Ok(())
        })
        // Not by `_exit`: its heap and its kernel are dropped like any.
        .state("child", |cx| *cx.heap() = None)
        .state("ended", |_| println!("the child has ended"))
        .state("line", |cx| {
            println!("{}", cx.take::<String>(0)?);
            *cx.heap() = None;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}
