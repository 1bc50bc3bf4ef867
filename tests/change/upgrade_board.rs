//! The boards of two processes while one takes over from the other (O-UP-19).

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use lenore::daemon::BoardFile;
use util::{DEADLINE, wait_until};

use super::changing::lenorectl;
use super::upgrading::{pid_file, pool, upgrade, wait_alone};

/// Has another thread end, also if this one panics.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test] // O-UP-19
fn board_changes_hands_when_the_new_process_is_ready() {
    let mut changing = pool(2, 0, "--board DIR/board --grace-ms 500");
    let path = changing.dir.path().join("board");
    let old = changing.running.pid();
    let of_old = BoardFile::open(&path).expect("a board");
    let mut busy = util::Client::connect(changing.addr);
    busy.line("x");
    let gate = changing.dir.path().join("gate");
    fs::write(&gate, "").expect("a file");
    changing.write(&format!("value=b\nchild=held {}\n", gate.display()));
    let pid_at = || BoardFile::open(&path).expect("a board").snapshot().expect("a whole one").service.pid as i32;
    let inode = || fs::metadata(&path).expect("a file").ino();
    let (first, is_over) = (inode(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _ends = EndOf(&is_over);
        // There is one at any time, and it is whole.
        let looker = scope.spawn(|| {
            let mut pids = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                pids.push(pid_at());
            }
            pids.push(pid_at());
            pids.dedup();
            pids
        });
        changing.ask("upgrade no-wait").ok();
        let new = changing.control().wait_status("a new process with children", |status| {
            let new = status.upgrades.successor.filter(|_| status.upgrades.stage.as_deref() == Some("loading"))?;
            (util::proc::children(new).len() == 2).then_some(new)
        });
        assert_eq!((pid_at(), inode()), (old, first), "it is not ready");
        fs::remove_file(&gate).expect("a file");
        wait_until("the new process", DEADLINE, || (pid_file(&changing) == new).then_some(()));
        wait_until("its board", DEADLINE, || (pid_at() == new).then_some(()));
        assert_ne!(inode(), first, "it has a board of its own");
        // What is open of the other one still shows that.
        let seen = of_old.snapshot().expect("a board");
        assert_eq!((seen.service.pid as i32, seen.pool.states.busy), (old, 1));
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(looker.join().expect("a board at any time"), [old, new]);
    });
    drop(busy);
    assert!(changing.running.wait_exit(DEADLINE).success());
    wait_alone(&changing);
    let names: Vec<_> =
        fs::read_dir(changing.dir.path()).expect("a directory").map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == "board" || !name.to_string_lossy().starts_with("board")), "{names:?}");
}

#[test] // O-UP-19: what a later version may have made of it is not read
fn board_of_another_layout_is_no_matter() {
    let mut changing = pool(1, 0, "--board DIR/board");
    let path = changing.dir.path().join("board");
    let file = OpenOptions::new().write(true).open(&path).expect("a file");
    let length = file.metadata().expect("a file").len();
    // It is a board, by its first word.
    file.write_all_at(&vec![0xA5; length as usize - 8], 8).expect("room");
    assert!(BoardFile::open(&path).is_err(), "nobody can read it");
    changing.write("value=b\n");
    let new = upgrade(&changing);
    assert!(changing.running.wait_exit(DEADLINE).success(), "{}", changing.running.stderr_text());
    let seen = BoardFile::open(&path).expect("a board").snapshot().expect("a board");
    assert_eq!((seen.service.pid as i32, changing.value().as_str()), (new, "b"));
    wait_alone(&changing);
    assert_eq!(lenorectl(&changing.socket, "status").code, 0);
}
