//! Follows a file, and prints what its wheel tells. With `short` it has no descriptor left for the file at the start, and finds some
//! a little later.
//!
//! ```text
//! follow PATH [short [OFFSET]]
//! following
//! retry open 24
//! released
//! a line
//! ```
//!
//! With an offset it begins there, back from the end if that is negative.

use std::env;
use std::fs::File;
use std::io::SeekFrom;
use std::path::PathBuf;
use std::time::Duration;

use lenore::filter::Line;
use lenore::wheel::{Failure, FollowTail};
use lenore::{Kernel, Session};

/// The wheel, and what takes up the descriptors.
type Heap = (Option<FollowTail<Line>>, Vec<File>);

/// Between two looks, and on with a file that was renamed.
const SHORT: Duration = Duration::from_millis(5);

fn main() -> Result<(), lenore::Error> {
    let path = PathBuf::from(env::args_os().nth(1).expect("a path"));
    let is_short = env::args().nth(2).is_some_and(|word| word == "short");
    let offset = env::args().nth(3).map(|offset| offset.parse::<i64>().expect("an offset"));
    let mut kernel = Kernel::new()?;
    Session::new(Heap::default())
        .state("_start", move |cx| {
            while is_short && let Ok(file) = File::open("/dev/null") {
                cx.heap().1.push(file);
            }
            let mut builder = FollowTail::path(&path, Line::new()).poll_interval(SHORT).rotate_wait(SHORT);
            if let Some(offset) = offset {
                builder = builder.seek(match u64::try_from(offset) {
                    Ok(offset) => SeekFrom::Start(offset),
                    Err(_) => SeekFrom::End(offset),
                });
            }
            builder = builder.on_input("line").on_reset("reset").on_retry("retry").on_error("failed");
            cx.heap().0 = Some(builder.start(cx)?);
            println!("following");
            Ok(())
        })
        .state("retry", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            println!("retry {operation} {errno}");
            if !cx.heap().1.is_empty() {
                // After other attempts, of which nothing is told.
                cx.delay("release", SHORT * 10, ());
            }
            Ok(())
        })
        .state("failed", |cx| {
            let Failure { operation, errno, .. } = cx.take(0)?;
            println!("failed {operation} {errno}");
            Ok(())
        })
        .state("release", |cx| {
            cx.heap().1.clear();
            println!("released");
        })
        .state("reset", |_| println!("reset"))
        .state("line", |cx| {
            println!("{}", cx.take::<String>(0)?);
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}
