//! smoke
use lenore::*;
use std::cell::RefCell;
use std::rc::Rc;
type Log = Rc<RefCell<Vec<String>>>;
#[test]
fn three_sessions() {
    let mut k = Kernel::new().unwrap();
    let log: Log = Rc::default();
    for n in 1..=3 {
        let l = log.clone();
        let l2 = log.clone();
        let l3 = log.clone();
        let l4 = log.clone();
        Session::new(n)
            .state("_start", |cx| {
                cx.yield_("a", ());
                cx.yield_("b", ());
            })
            .state("a", move |cx| {
                l.borrow_mut().push(format!("a{}", cx.heap()));
                cx.yield_("c", ())
            })
            .state("b", move |cx| l2.borrow_mut().push(format!("b{}", cx.heap())))
            .state("c", move |cx| l3.borrow_mut().push(format!("c{}", cx.heap())))
            .state("_stop", move |cx| l4.borrow_mut().push(format!("s{}", cx.heap())))
            .spawn(&mut k)
            .unwrap();
    }
    k.run().unwrap();
    assert_eq!(log.borrow().join(" "), "a1 b1 a2 b2 a3 b3 c1 c2 c3 s3 s2 s1");
}
#[test]
fn die_ends() {
    let mut k = Kernel::new().unwrap();
    Session::new(())
        .state("_start", |cx| cx.delay("x", std::time::Duration::from_millis(1), ()))
        .state("x", |_cx| {
            let n: u32 = "z".parse()?;
            Ok(n)
        })
        .spawn(&mut k)
        .unwrap();
    let e = k.run().unwrap_err();
    assert_eq!(e.to_string(), "session 1, state x: invalid digit found in string");
}
