//! What a call returns, and arguments of another type.

use lenore::{Error, Exceptions, Reply, Return, Session};
use util::diary::{Log, lines, new_kernel, plain};

#[test] // K-EV-35, K-EV-36, K-EV-38 as K-RE-12 wants it; K-CL-02
fn a_call_tells_a_value_from_none_and_from_no_state() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let with_default = plain("d", &log).state("_default", |_| "by default").spawn(&mut kernel)?;
    let without = plain("s", &log).state("unit", |_| ()).state("value", |_| 7_u64).spawn(&mut kernel)?;
    assert_eq!(kernel.call(with_default, "anything", ())?.take::<&str>()?, "by default");
    assert!(matches!(kernel.call(without, "anything", ())?, Reply::NoHandler));
    assert!(matches!(kernel.call(without, "unit", ())?, Reply::NoValue));
    assert_eq!(kernel.call(without, "value", ())?.take::<u64>()?, 7);
    let error = kernel.call(without, "value", ())?.take::<String>().expect_err("a u64 is no String");
    assert!(matches!(error, Error::Value { .. }));
    kernel.post(without, "anything", ())?;
    kernel.run()?;
    assert!(lines(&log).is_empty(), "dropped in silence");
    Ok(())
}

#[test] // K-CL-01: both types and the place are named, in whichever session the call was made
fn a_reply_of_another_type_is_an_error_that_names_both_types_and_the_caller() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let other = Session::new(())
        .state("_start", |cx| Ok(cx.alias_set("other")?))
        .state("text", |_| String::from("text"))
        .state("list", |_| vec![1_u8])
        .state("own", |_| Return(Wrapped))
        .state("nothing", |_| ())
        .spawn(&mut kernel)?;
    let here = |line: u32| format!(" ({}:{line}:", file!());
    for (state, found) in [("text", "alloc::string::String"), ("list", "alloc::vec::Vec<u8>"), ("nothing", "nothing")] {
        let reply = kernel.call(other, state, ())?;
        let (error, line) = (reply.take::<i32>().expect_err("it is no i32").to_string(), line!());
        let expected = format!("the call should return i32, but returned {found}{}", here(line));
        assert!(error.starts_with(&expected), "{error}");
    }
    let Reply::Value(value) = kernel.call(other, "own", ())? else { panic!("the state returns a value") };
    assert!(value.type_name().ends_with("::Wrapped"), "{value:?}");
    let value = value.downcast::<i32>().expect_err("it is no i32");
    assert!(value.downcast::<Wrapped>().is_ok(), "a value of another type stays");
    kernel.stop();
    kernel.run()
}

struct Wrapped;

#[test] // in edition 2024 the compiler takes the never type, and before that the unit type
fn a_type_that_was_not_written_is_asked_for() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let id = Session::new(())
        .state("_start", |cx| Ok(cx.alias_set("s")?))
        .state("seven", |_| 7_u32)
        .state("never", |cx| {
            #[allow(unreachable_code, unused_variables, reason = "this is what the compiler makes of it")]
            let number = cx.take(0)?;
            Ok(())
        })
        .state("unit", |cx| Ok(cx.take::<()>(0)?))
        .state("reply", |cx| {
            let me = cx.session();
            #[allow(unreachable_code, unused_variables, reason = "this is what the compiler makes of it")]
            let number = cx.call(me, "seven", ())?.take()?;
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.catch_exceptions(Exceptions::EndTheRun);
    let mut failure = |state: &str| kernel.call(id, state, (7_u32,)).expect_err("the state fails").to_string();
    assert_eq!(
        failure("never"),
        "session 1, state never: argument 0 should be !, but is u32: write the type, `::<u32>`"
    );
    assert_eq!(
        failure("unit"),
        "session 1, state unit: argument 0 should be (), but is u32: write the type, `::<u32>`"
    );
    let text = failure("reply");
    assert!(text.starts_with("the call should return !, but returned u32: write the type, `::<u32>` ("), "{text}");
    Ok(())
}

#[test] // design 2: arguments are typed, and a wrong one is named
fn an_argument_of_another_type_is_an_error_that_names_everything() -> Result<(), Error> {
    let mut kernel = new_kernel();
    Session::new(())
        .state("_start", |cx| cx.yield_("e", (1_i32,)))
        .state("e", |cx| {
            let error = cx.arg::<String>(0).expect_err("an i32 is no String").to_string();
            assert_eq!(error, "session 1, state e: argument 0 should be alloc::string::String, but is i32");
            assert_eq!(cx.take::<i32>(0)?, 1);
            let error = cx.take::<i32>(0).expect_err("it was taken").to_string();
            assert!(error.ends_with("but it was taken before"), "{error}");
            let error = cx.arg::<i32>(1).expect_err("there is one only").to_string();
            assert!(error.ends_with("but there is none"), "{error}");
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}
