//! What does a session cost: to create and stop, and in memory while it is idle?

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use lenore::{Error, Kernel, Session};

mod ratios;

use ratios::{Budget, Rounds};

/// How many sessions begin and end in one slice.
const PER_SLICE: u64 = 100;

/// How many idle sessions the memory is shared by.
const IDLE: u64 = 10_000;

fn main() -> Result<(), Error> {
    print_idle_bytes()?;
    let mut kernel = Kernel::new()?;
    Rounds::measure(
        "sessions",
        1,
        &mut kernel,
        &[("create_stop", |kernel, bencher| bencher.iter_custom(|n| create_and_stop(kernel, n)))],
    )
    .nanos("create_stop", Budget::None)
    .print();
    Ok(())
}

/// Creates sessions that have nothing to live for, and has the kernel stop them.
fn create_and_stop(kernel: &mut Kernel, count: u64) -> Duration {
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        let now = left.min(PER_SLICE);
        left -= now;
        for _ in 0..now {
            let session = Session::new(0_u64).state("_start", |_| ()).state("_stop", |_| ());
            session.spawn(kernel).expect("a valid session");
        }
        kernel.run_one_timeslice().expect("no state fails");
    }
    start.elapsed()
}

/// Prints how much memory an idle session takes besides its heap and its states. It is kept alive by one extra
/// reference.
fn print_idle_bytes() -> Result<(), Error> {
    let one_state = bytes_per_session(|| Session::new(()).state("_start", |_| ()))?;
    let two_states = bytes_per_session(|| Session::new(()).state("_start", |_| ()).state("tick", |_| ()))?;
    // The heap is empty; one state is the whole table of the first kind.
    let beyond = one_state - (two_states - one_state);
    println!("bytes sessions idle {beyond:.0}{}", Budget::AtMost(512.0).verdict(beyond));
    Ok(())
}

fn bytes_per_session(make: impl Fn() -> Session<()>) -> Result<f64, Error> {
    let mut kernel = Kernel::new()?;
    let before = LIVE.get();
    for number in 1..=IDLE {
        let id = make().spawn(&mut kernel)?;
        kernel.refcount_increment(id, "idle")?;
        // The queue is not to grow with the number of sessions.
        if number % PER_SLICE == 0 {
            kernel.run_one_timeslice()?;
        }
    }
    Ok((LIVE.get() - before) as f64 / IDLE as f64)
}

/// The system's allocator, which also counts what each thread holds.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that were asked for and not given back. Not atomic: what is measured has one thread.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor panics, as the counter is
// initialized at compile time and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `dealloc`, and `place` came from `System`.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.set(LIVE.get() + size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `realloc`, and `place` came from `System`.
        unsafe { System.realloc(place, layout, size) }
    }
}
