//! Tests of what must not compile: each forbidden call stands beside the same call in a place where it is allowed.

/// A kernel has none of the calls that act for the running session (K-CV-09, K-TM-32).
macro_rules! in_a_state_only {
    ($($call:literal)*) => {
        $(
            #[doc = concat!(
                "```compile_fail,E0599\nuse std::time::*;\nfn outside(kernel: &mut lenore::Kernel, handle: lenore::Handle, alarm: lenore::AlarmId) {\n",
                "    let _ = kernel.", $call, ";\n}\n```\n",
                "```\nuse std::time::*;\nfn inside(cx: &mut lenore::Context<'_, ()>, handle: lenore::Handle, alarm: lenore::AlarmId) {\n",
                "    let _ = cx.", $call, ";\n}\n```\n",
            )]
        )*
        struct Calls;
    };
}

in_a_state_only! {
    "yield_(\"e\", ())"
    "alarm(\"e\", SystemTime::now(), ())"
    "delay(\"e\", Duration::ZERO, ())"
    "delay_set(\"e\", Duration::ZERO, ())"
    "alarm_remove(alarm)"
    "alarm_remove_all()"
    "sig(\"TERM\", \"e\")"
    "sig_clear(\"TERM\")"
    "sig_handled()"
    "sig_child(1, \"e\", ())"
    "select_read(&handle, \"e\", ())"
    "select_pause_read(&handle)"
    "alias_set(\"name\")"
    "alias_remove(\"name\")"
    "postback(\"e\", ())"
    "callback(\"e\", ())"
    "fork(\"parent\", \"child\", ())"
    "state(\"new\", |_| ())"
    "set_option(lenore::SessionOption::Trace, lenore::Switch::On)"
    "detach_myself()"
}

/// No wheel is made outside of a state.
macro_rules! wheels_in_a_state_only {
    ($($make:literal $verb:literal)*) => {
        $(
            #[doc = concat!(
                "```compile_fail,E0277\nuse lenore::{filter::*, wheel::*};\nfn outside(kernel: &mut lenore::Kernel, fd: std::os::fd::OwnedFd) {\n",
                "    let _ = ", $make, ".", $verb, "(kernel);\n}\n```\n",
                "```\nuse lenore::{filter::*, wheel::*};\nfn inside(cx: &mut lenore::Context<'_, ()>, fd: std::os::fd::OwnedFd) {\n",
                "    let _ = ", $make, ".", $verb, "(cx);\n}\n```\n",
            )]
        )*
        struct Wheels;
    };
}

wheels_in_a_state_only! {
    "ReadWrite::stream(fd, Line::new())" "start"
    "SocketFactory::tcp(\"127.0.0.1:0\")" "listen"
    "SocketFactory::tcp(\"127.0.0.1:1\")" "connect"
    "SocketFactory::udp(\"127.0.0.1:0\")" "bind"
    "ListenAccept::listener(fd)" "start"
    "FollowTail::path(\"log\", Line::new())" "start"
    "Run::program([\"true\"])" "start"
}

/// A state can't swap its kernel for another. A context does not implement `AsMut<Kernel>`:
///
/// ```compile_fail,E0277
/// use lenore::{Context, Kernel};
/// fn exchange(cx: &mut Context<'_, ()>, other: &mut Kernel) {
///     std::mem::swap(AsMut::<Kernel>::as_mut(cx), other);
/// }
/// ```
///
/// Neither a context nor a kernel can be dereferenced:
///
/// ```compile_fail,E0614
/// use lenore::{Context, Kernel};
/// fn exchange(cx: &mut Context<'_, ()>, other: &mut Kernel) {
///     std::mem::swap(&mut **cx, &mut **other);
/// }
/// ```
///
/// The field inside `Calls` is private:
///
/// ```compile_fail,E0616
/// use lenore::{Calls, Context, Kernel};
/// fn exchange(cx: &mut Context<'_, ()>, other: &mut Calls<'_>) {
///     std::mem::swap(&mut *cx.split().1.core, &mut *other.core);
/// }
/// ```
///
/// A generic function can't get at the kernel, because it can't make the key:
///
/// ```compile_fail,E0277
/// use lenore::{AsKernel, Kernel};
/// fn exchange(one: &mut impl AsKernel, other: &mut Kernel) {
///     std::mem::swap(one.kernel_mut(Default::default()), other);
/// }
/// ```
///
/// No other type can implement the two traits:
///
/// ```compile_fail,E0277
/// struct Mine;
/// impl lenore::AsKernel for Mine {}
/// ```
///
/// ```compile_fail,E0277
/// struct Mine;
/// impl lenore::InState for Mine {
///     fn calls(&mut self) -> lenore::Calls<'_> {
///         unreachable!()
///     }
/// }
/// ```
struct Exchange;
