//! A macro that gives the kernel's calls to each type on which a program finds them.

/// Makes methods of `Core`, and a method of the same name on each type on which a program finds the call.
///
/// - `for a running session` are those that act for the session whose state runs. [`Context`](crate::Context),
///   [`MachineContext`](crate::nfa::MachineContext) and [`Calls`](crate::Calls) have them. Once the session is stopped they
///   refuse, by the [`Refusal`](crate::kernel::Refusal) of what they return.
/// - `for a state` are found on the same types, and do not refuse.
/// - `for a kernel` are those that act for the session that they name. [`Kernel`](crate::Kernel) has them as well.
/// - `to read a kernel` are those that change nothing. `Kernel` has them as well.
///
/// `Context` or `Kernel` has the full documentation. The other types have its first line and a link. The word after
/// `with` is the methods' own `self`, which the macro can't name by itself. rustfmt does not format the methods inside
/// the macro. It does if you put `impl Core` in place of the first lines for a moment.
macro_rules! calls {
    ($(#[$title:meta])* for a running session, with $this:ident: $($methods:tt)*) => {
        calls! { @checked $this $($methods)* }
        calls! { @in_a_state $this [$(#[$title])*] $($methods)* }
    };
    ($(#[$title:meta])* for a state, with $this:ident: $($methods:tt)*) => {
        calls! { @plain $($methods)* }
        calls! { @in_a_state $this [$(#[$title])*] $($methods)* }
    };
    ($(#[$title:meta])* for a kernel, with $this:ident: $($methods:tt)*) => {
        calls! { @plain $($methods)* }
        calls! { @anywhere $this core_mut [$(#[$title])*] $($methods)* }
    };
    ($(#[$title:meta])* to read a kernel, with $this:ident: $($methods:tt)*) => {
        calls! { @plain $($methods)* }
        calls! { @anywhere $this core [$(#[$title])*] $($methods)* }
    };

    (@in_a_state $this:ident [$($title:tt)*] $($methods:tt)*) => {
        calls! { @full $this core_mut [$($title)* impl<H: 'static> $crate::Context<'_, H>] $($methods)* }
        calls! { @brief $this core_mut "Context" [$($title)* impl<R: 'static> $crate::nfa::MachineContext<'_, R>] $($methods)* }
        calls! { @brief $this core_mut "Context" [$($title)* impl $crate::Calls<'_>] $($methods)* }
    };
    (@anywhere $this:ident $core:ident [$($title:tt)*] $($methods:tt)*) => {
        calls! { @full $this $core [$($title)* impl $crate::Kernel] $($methods)* }
        calls! { @brief $this $core "Kernel" [$($title)* impl<H: 'static> $crate::Context<'_, H>] $($methods)* }
        calls! { @brief $this $core "Kernel" [$($title)* impl<R: 'static> $crate::nfa::MachineContext<'_, R>] $($methods)* }
        calls! { @brief $this $core "Kernel" [$($title)* impl $crate::Calls<'_>] $($methods)* }
    };

    // `& $by $own` is `&self` or `&mut self`.
    (@checked $this:ident $(
        $(#[$attribute:meta])*
        pub fn $name:ident $(<$life:lifetime>)? (&$by:ident $($own:ident)? $(, $argument:ident: $type:ty)* $(,)?)
            $(-> $return:ty)? $body:block
    )*) => {
        impl Core {
            $(
                #[track_caller]
                pub(crate) fn $name $(<$life>)? (&$by $($own)? $(, $argument: $type)*) $(-> $return)? {
                    if $this.active.session == $crate::SessionId::KERNEL {
                        return $crate::kernel::Refusal::refusal();
                    }
                    $body
                }
            )*
        }
    };
    (@plain $(
        $(#[$attribute:meta])*
        pub fn $name:ident $(<$life:lifetime>)? (&$by:ident $($own:ident)? $(, $argument:ident: $type:ty)* $(,)?)
            $(-> $return:ty)? $body:block
    )*) => {
        impl Core {
            $(
                #[track_caller]
                pub(crate) fn $name $(<$life>)? (&$by $($own)? $(, $argument: $type)*) $(-> $return)? $body
            )*
        }
    };
    (@full $this:ident $core:ident [$($header:tt)*] $(
        $(#[$attribute:meta])*
        pub fn $name:ident $(<$life:lifetime>)? (&$by:ident $($own:ident)? $(, $argument:ident: $type:ty)* $(,)?)
            $(-> $return:ty)? $body:block
    )*) => {
        $($header)* {
            $(
                $(#[$attribute])*
                #[inline]
                pub fn $name $(<$life>)? (&$by $($own)? $(, $argument: $type)*) $(-> $return)? {
                    $this.$core().$name($($argument),*)
                }
            )*
        }
    };
    (@brief $this:ident $core:ident $at:literal [$($header:tt)*] $(
        #[doc = $brief:literal]
        $(#[$attribute:meta])*
        pub fn $name:ident $(<$life:lifetime>)? (&$by:ident $($own:ident)? $(, $argument:ident: $type:ty)* $(,)?)
            $(-> $return:ty)? $body:block
    )*) => {
        $($header)* {
            $(
                #[doc = $brief]
                #[doc = concat!("\n\nSee [`", $at, "::", stringify!($name), "`](crate::", $at, "::", stringify!($name), ").")]
                #[inline]
                #[track_caller]
                pub fn $name $(<$life>)? (&$by $($own)? $(, $argument: $type)*) $(-> $return)? {
                    $this.$core().$name($($argument),*)
                }
            )*
        }
    };
}

pub(crate) use calls;
