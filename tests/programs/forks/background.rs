//! Background sessions, and what a forked child has of them.

use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{self, ExitStatus};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

use lenore::wheel::{Run, SocketFactory};
use lenore::{Context, Error, Handle, Kernel, Result, Session, SessionId};
use nix::unistd::ForkResult;

use super::by_itself::fork_by_hand;
use super::{linger, say};

/// Says when it is dropped.
struct Loud(&'static str);

static PARENT: OnceLock<u32> = OnceLock::new();

impl Drop for Loud {
    fn drop(&mut self) {
        let is_parent = PARENT.get().is_some_and(|pid| *pid == process::id());
        println!("{}: dropped {}", if is_parent { "parent" } else { "child" }, self.0);
    }
}

struct Job {
    listener: Option<SocketFactory>,
    helper: Option<Run>,
    _loud: Loud,
}

/// A session with something of everything that another one could have in a child.
fn job() -> Session<Job> {
    PARENT.get_or_init(process::id);
    let captured = Loud("what a state has captured");
    Session::new(Job { listener: None, helper: None, _loud: Loud("heap") })
        .state("_start", |cx| {
            cx.alias_set("job")?;
            linger(cx)?;
            cx.sig("FORKED", "forked");
            cx.sig("USR2", "ask");
            cx.delay("never", Duration::from_secs(3600), (Loud("alarm"),));
            cx.yield_("late", ());
            cx.heap().listener = Some(SocketFactory::tcp("127.0.0.1:0").on_accept("never").listen(cx)?);
            Ok(())
        })
        .state("late", |_| ())
        .state("never", move |_| {
            let _ = &captured;
        })
        .state("forked", |cx| say(cx, "job was told of the fork"))
        .state("ask", |cx| say(cx, "job answers"))
        .state("_stop", |cx| say(cx, "job stops"))
        .background()
}

/// What a process can still have of a job.
fn look_for(cx: &mut Context<'_, Parent>) -> Result {
    let (job, fd) = (cx.heap().job, cx.heap().fd);
    for dest in [job.into(), lenore::Dest::Alias("job")] {
        let told = cx.call(dest, "ask", ());
        let posted = cx.post(dest, "ask", ());
        if let (Err(call), Err(post)) = (told, posted) {
            assert_eq!(call.to_string(), post.to_string());
            say(cx, call);
        }
    }
    // Whatever the number stands for now: the listener would be a socket.
    let is_open = std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|to| to == cx.heap().socket);
    let sessions = cx.peek().sessions.iter().filter(|session| session.is_background).count();
    say(cx, format!("background sessions: {sessions}, listener is open: {is_open}"));
    Ok(())
}

struct Parent {
    job: SessionId,
    /// The job's listener, and what the system calls it.
    fd: RawFd,
    socket: PathBuf,
}

fn parent(kernel: &mut Kernel) -> Result<Session<Parent>, Error> {
    let job = job().spawn(kernel)?;
    let fd = kernel.peek().sources.iter().find(|source| source.owner == job).map(|source| source.fd);
    let fd = fd.expect("it listens");
    let socket = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is open");
    Ok(Session::new(Parent { job, fd, socket }))
}

/// The kernel forks.
pub fn forks(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    parent(kernel)?
        .state("_start", |cx| cx.fork("forked", "begins", ()))
        .state("forked", |cx| {
            let pid = cx.take::<Result<i32, Error>>(0)??;
            say(cx, format!("forked {pid}"));
            cx.sig_child(pid, "exited", ());
            Ok(())
        })
        .state("begins", look_for)
        // The child has said all that it has to say.
        .state("exited", look_for)
        .spawn(kernel)?;
    Ok(())
}

/// A wheel of the job itself forks, and one of another session.
pub fn functions(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    let look = |kernel: &mut Kernel| -> Result {
        let found = kernel.peek().sessions.iter().filter(|session| session.is_background).count();
        kernel.stop();
        if found == 0 { Ok(()) } else { Err(std::io::Error::other(format!("{found} background sessions")).into()) }
    };
    job()
        .state("late", move |cx| {
            cx.heap().helper = Some(Run::function(look).on_exit("exited").start(cx)?);
            Ok(())
        })
        .state("exited", |cx| {
            let status = cx.take::<ExitStatus>(2)?;
            say(cx, format!("job's helper: {status}"));
            // Only then: the job keeps nothing running.
            cx.post("other", "go", ())?;
            Ok(())
        })
        .spawn(kernel)?;
    Session::new(None::<Run>)
        .state("_start", |cx| {
            let me = cx.session();
            cx.refcount_increment(me, "go")?;
            Ok(cx.alias_set("other")?)
        })
        .state("go", move |cx| {
            *cx.heap() = Some(Run::function(look).on_exit("exited").start(cx)?);
            Ok(())
        })
        .state("exited", |cx| {
            let (me, status) = (cx.session(), cx.take::<ExitStatus>(2)?);
            say(cx, format!("other helper: {status}"));
            *cx.heap() = None;
            cx.refcount_decrement(me, "go")?;
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// The program forks by itself, in a state of the job.
pub fn by_itself(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    job()
        .state("late", |cx| {
            match fork_by_hand() {
                ForkResult::Parent { child } => {
                    say(cx, format!("forked {child}"));
                    // The child says its last before.
                    nix::sys::wait::waitpid(child, None)?;
                }
                ForkResult::Child => {
                    cx.stop();
                    let (session, listens) = (cx.session(), cx.heap().listener.is_some());
                    say(cx, format!("goes on as {session}, has its heap: {listens}"));
                }
            }
            Ok(())
        })
        .spawn(kernel)?;
    Ok(())
}

/// Process 1 is no child of the program's, so nothing comes of waiting for it.
const NEVER_REAPED: i32 = 1;

/// The kernel forks while it keeps something of each kind for a background session.
pub fn possessions(kernel: &mut Kernel, _: &str) -> Result<(), Error> {
    PARENT.get_or_init(process::id);
    Session::new(())
        .state("_start", |cx| {
            cx.alias_set("other")?;
            cx.fork("forked", "begins", ());
            Result::Ok(())
        })
        .state("forked", |cx| {
            let pid = cx.take::<Result<i32, Error>>(0)??;
            say(cx, format!("forked {pid}"));
            cx.sig_child(pid, "exited", ());
            Ok(())
        })
        .state("exited", |_| ())
        .state("begins", |cx| say(cx, "begins"))
        .state("take", |_| ())
        .spawn(kernel)?;
    Session::new(None::<(Handle, UnixStream)>)
        .state("_start", |cx| {
            let (ours, theirs) = UnixStream::pair()?;
            let handle = Handle::new(ours);
            cx.sig_with("USR2", "never", (Rc::new(Loud("extra of a signal")),));
            cx.sig_child(NEVER_REAPED, "never", (Loud("extra of a child"),));
            cx.select_read(&handle, "never", (Rc::new(Loud("extra of a handle")),))?;
            *cx.heap() = Some((handle, theirs));
            cx.delay("never", Duration::from_secs(3600), (Loud("alarm"),));
            cx.yield_("later", (Loud("own event"),));
            let me = cx.session();
            cx.signal(me, "a signal", (Rc::new(Loud("own signal")),))?;
            Ok(cx.post("other", "take", (Loud("event to another"),))?)
        })
        .state("later", |_| ())
        .background()
        .spawn(kernel)?;
    Ok(())
}
