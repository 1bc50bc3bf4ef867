//! Aliases, ids and extra references (K-AL, K-RC).

use lenore::{Error, Exception, Name, Session, SessionId};
use util::diary::{Log, lines, millis, new_kernel, note, plain, witness};

#[test] // K-AL-01
fn an_alias_names_one_session_at_a_time() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let owner = plain("s", &log)
        .state("_start", |cx| {
            cx.alias_set("name")?;
            cx.alias_set("name")?;
            let snapshot = cx.peek();
            assert_eq!(snapshot.sessions[0].refcount, 1, "the second time changed nothing");
            Ok(())
        })
        .spawn(&mut kernel)?;
    plain("t", &log)
        .state("_start", move |cx| {
            assert!(matches!(cx.alias_set("name"), Err(Error::AliasTaken { alias, owner: o }) if alias == "name" && o == owner));
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-AL-02, K-CV-06
fn each_alias_keeps_its_session_alive() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let named = witness("named", &log)
        .state("_start", |cx| {
            cx.alias_set("a")?;
            cx.alias_set("b")?;
            Ok(())
        })
        .state("remove", |cx| {
            let alias = *cx.arg::<&str>(0)?;
            cx.heap().say(alias);
            cx.alias_remove(alias).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    witness("t", &log)
        .state("_start", |cx| cx.delay("first", millis(1), ()))
        .state("first", move |cx| {
            cx.post(named, "remove", ("a",))?;
            cx.delay("second", millis(1), ());
            Ok(())
        })
        .state("second", move |cx| {
            cx.post("b", "remove", ("b",))?;
            cx.delay("end", millis(2), ());
            Ok(())
        })
        .state("end", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["named a", "named b", "named _stop", "t end", "t _stop"]);
    Ok(())
}

#[test] // K-AL-03
fn only_its_owner_may_remove_an_alias() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let owner = plain("s", &log)
        .state("_start", |cx| cx.alias_set("name").map_err(Exception::from))
        .state("drop it", |cx| cx.alias_remove("name").map_err(Exception::from))
        .spawn(&mut kernel)?;
    plain("t", &log)
        .state("_start", move |cx| {
            let refused = cx.alias_remove("name");
            assert!(matches!(refused, Err(Error::NotYourAlias { owner: o, .. }) if o == owner));
            assert!(matches!(cx.alias_remove("no name"), Err(Error::NoSuchAlias(name)) if name == "no name"));
            cx.call("name", "drop it", ())?;
            assert!(matches!(cx.alias_remove("name"), Err(Error::NoSuchAlias(_))));
            Ok(())
        })
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test] // K-AL-04, K-AL-07, K-EV-20
fn ids_and_aliases_resolve_and_so_does_the_kernel() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log)
        .state("_start", |cx| cx.alias_set("name").map_err(Exception::from))
        .state("e", note)
        .spawn(&mut kernel)?;
    assert_eq!(kernel.alias_resolve(id)?, id);
    assert_eq!(kernel.alias_resolve("name")?, id);
    assert_eq!(kernel.alias_resolve(&String::from("name"))?, id);
    assert_eq!(kernel.alias_resolve(Name::new("name"))?, id);
    assert_eq!(kernel.alias_resolve(SessionId::KERNEL)?, SessionId::KERNEL);
    let error = kernel.alias_resolve("nobody").expect_err("no such alias");
    assert_eq!(error.to_string(), "no such session: alias nobody");
    kernel.post("name", "e", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["s e"]);
    assert!(matches!(kernel.alias_resolve(id), Err(Error::NoSuchSession(text)) if text == "session 1"));
    Ok(())
}

#[test] // K-EV-21: an id is no text here, so neither can stand before the other
fn an_alias_that_reads_like_an_id_is_an_alias() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let first = plain("first", &log).state("e", note).spawn(&mut kernel)?;
    let second = plain("second", &log)
        .state("_start", |cx| {
            for alias in ["1", "session 1", "kernel", "0"] {
                cx.alias_set(alias)?;
            }
            Ok(())
        })
        .state("e", note)
        .spawn(&mut kernel)?;
    assert_eq!((first.number(), first.to_string()), (1, "session 1".into()));
    for alias in ["1", "session 1", "kernel", "0"] {
        assert_eq!(kernel.alias_resolve(alias)?, second);
    }
    kernel.post("1", "e", ())?;
    kernel.post(first, "e", ())?;
    kernel.run()?;
    assert_eq!(lines(&log), ["second e", "first e"]);
    Ok(())
}

#[test] // K-AL-05
fn aliases_are_listed_sorted() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log)
        .state("_start", |cx| {
            // Interned in another order than they sort in.
            for alias in ["pear", "apple", "quince"] {
                cx.alias_set(alias)?;
            }
            Ok(())
        })
        .spawn(&mut kernel)?;
    assert_eq!(kernel.alias_list(id)?, ["apple", "pear", "quince"]);
    assert_eq!(kernel.alias_list("pear")?, ["apple", "pear", "quince"]);
    assert!(kernel.alias_list(SessionId::KERNEL)?.is_empty());
    kernel.run()?;
    assert!(matches!(kernel.alias_list(id), Err(Error::NoSuchSession(_))));
    Ok(())
}

#[test] // K-AL-06
fn the_aliases_of_a_stopped_session_are_free_again() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let first = plain("s", &log).state("_start", |cx| cx.alias_set("name").map_err(Exception::from));
    let first = first.spawn(&mut kernel)?;
    kernel.signal_now(first, "KILL", ())?;
    assert!(matches!(kernel.alias_resolve("name"), Err(Error::NoSuchSession(_))));
    let second = plain("t", &log).state("_start", |cx| cx.alias_set("name").map_err(Exception::from));
    let second = second.spawn(&mut kernel)?;
    assert_eq!(kernel.alias_resolve("name")?, second);
    kernel.run()
}

#[test] // K-RC-01, K-RC-02
fn a_tag_counts_its_units_and_the_refcount_counts_tags() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log).spawn(&mut kernel)?;
    let refcount = |kernel: &lenore::Kernel| kernel.peek().sessions[0].refcount;
    let before = refcount(&kernel);
    assert_eq!(kernel.refcount_increment(id, "a")?, 1);
    assert_eq!(kernel.refcount_increment(id, "a")?, 2);
    assert_eq!(refcount(&kernel), before + 1);
    assert_eq!(kernel.refcount_increment(id, "b")?, 1);
    assert_eq!(refcount(&kernel), before + 2);
    assert_eq!(kernel.refcount_decrement(id, "a")?, 1);
    assert_eq!(refcount(&kernel), before + 2);
    assert_eq!(kernel.refcount_decrement(id, "a")?, 0);
    assert_eq!(kernel.refcount_decrement(id, "b")?, 0);
    assert_eq!(refcount(&kernel), before);
    kernel.run()?;
    assert!(matches!(kernel.refcount_increment(id, "a"), Err(Error::NoSuchSession(_))));
    assert!(matches!(kernel.refcount_decrement(id, "a"), Err(Error::NoSuchSession(_))));
    Ok(())
}

#[test] // K-RC-04 as K-RE-10 wants it
fn decrementing_an_unknown_tag_is_an_error_without_effect() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let id = plain("s", &log).spawn(&mut kernel)?;
    for _ in 0..2 {
        assert!(
            matches!(kernel.refcount_decrement(id, "a"), Err(Error::NoSuchTag { session, tag }) if session == id && tag == "a")
        );
    }
    assert_eq!(kernel.refcount_increment(id, "a")?, 1);
    assert_eq!(kernel.refcount_decrement(id, "a")?, 0);
    kernel.run()
}

#[test] // K-RC-03, K-RC-05
fn a_decrement_by_another_session_takes_effect_at_the_next_sweep() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    let held = witness("held", &log)
        .state("_start", |cx| {
            let me = cx.session();
            cx.refcount_increment(me, "tag").map(drop).map_err(Exception::from)
        })
        .spawn(&mut kernel)?;
    witness("t", &log)
        .state("_start", |cx| cx.delay("let go", millis(1), ()))
        .state("let go", move |cx| {
            assert_eq!(cx.refcount_decrement(held, "tag")?, 0);
            cx.heap().say("has let go");
            cx.delay("end", millis(1), ());
            Ok(())
        })
        .state("end", note)
        .spawn(&mut kernel)?;
    kernel.run()?;
    assert_eq!(lines(&log), ["t has let go", "held _stop", "t end", "t _stop"]);
    Ok(())
}

#[test] // K-RC-06
fn references_that_come_and_go_in_start_do_not_end_the_session() -> Result<(), Error> {
    let (log, mut kernel) = (Log::default(), new_kernel());
    witness("s", &log)
        .state("_start", |cx| {
            let me = cx.session();
            cx.refcount_increment(me, "tag")?;
            cx.refcount_decrement(me, "tag")?;
            cx.heap().say("_start ends");
            Ok(())
        })
        .spawn(&mut kernel)?;
    assert_eq!(lines(&log), ["s _start ends"]);
    kernel.run()?;
    assert_eq!(lines(&log), ["s _stop"]);
    Ok(())
}

#[test] // a list of names is iterated by reference
fn name_by_reference_names_events_aliases_and_sessions() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let names = ["first", "second"].map(Name::new);
    Session::new(Vec::new())
        .state("_start", move |cx| {
            for name in &names {
                cx.alias_set(name)?;
                cx.yield_(name, ());
                cx.post(name, name, ())?;
            }
            Ok(())
        })
        .state("first", |cx| cx.heap().push(1))
        .state("second", |cx| cx.heap().push(2))
        .state("_stop", |cx| assert_eq!(*cx.heap(), [1, 1, 2, 2]))
        .spawn(&mut kernel)?;
    kernel.run()
}

#[test]
fn alias_may_be_made_of_what_the_context_says() -> Result<(), Error> {
    let mut kernel = new_kernel();
    let id = Session::new(())
        .state("_start", |cx| Ok(cx.alias_set(format!("{}", cx.session()))?))
        .state("same", |cx| Ok(cx.alias_resolve(cx.state_name()).is_err()))
        .spawn(&mut kernel)?;
    assert_eq!(kernel.alias_resolve(&id.to_string())?, id);
    assert!(kernel.call(id, "same", ())?.take::<bool>()?);
    Ok(())
}
