//! Whether the system has killed a child because memory ran out.
//!
//! The system sends KILL, as other processes may. Only its own log and a counter of the victim's control group tell that it did. The
//! Daemon's children are in the group in which the Daemon was started, unless another process has moved them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::daemon::machine::Killer;

/// The counter of those whom the system has killed in this process's control group.
#[derive(Debug, Default)]
pub(in crate::daemon) struct OomKills {
    /// Open, as a chroot has no such file.
    file: Option<File>,
    count: Count,
}

impl OomKills {
    /// Finds the counter and opens it; without one nothing is known.
    pub(in crate::daemon) fn open() -> OomKills {
        let file = find().and_then(|path| File::open(path).ok());
        let mut kills = OomKills { file, count: Count::default() };
        if let Some(total) = kills.read() {
            kills.count.seen = total;
        }
        kills
    }

    /// Says whom a KILL is from that has just ended a child; each that the system has sent explains one child.
    pub(in crate::daemon) fn explain(&mut self) -> Killer {
        match self.read() {
            Some(total) if self.count.claim(total) => Killer::System,
            Some(_) => Killer::Other,
            None => Killer::Unknown,
        }
    }

    /// Forgets what was seen in the round before and has explained nobody: it was for another process of the group.
    pub(in crate::daemon) fn forget_old(&mut self) {
        if let Some(total) = self.read() {
            self.count.forget_old(total);
        }
    }

    fn read(&self) -> Option<u64> {
        // Three lines as a rule, and every read makes the whole file anew.
        let mut text = [0; 1024];
        let length = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        oom_kills(std::str::from_utf8(&text[..length]).ok()?)
    }
}

/// What has become of the counter, and what of it has not explained a death yet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Count {
    seen: u64,
    unexplained: u64,
}

impl Count {
    fn claim(&mut self, total: u64) -> bool {
        self.unexplained += total.saturating_sub(self.seen);
        self.seen = total;
        let is_one = self.unexplained > 0;
        self.unexplained -= u64::from(is_one);
        is_one
    }

    /// What comes to light by this call is kept: its victim may not have been reaped yet.
    fn forget_old(&mut self, total: u64) {
        self.unexplained = total.saturating_sub(self.seen);
        self.seen = total;
    }
}

fn find() -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        let read = |path| crate::sys::procfs::read_to_string(path).ok();
        counter_path(&read("self/cgroup")?, &read("self/mountinfo")?)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Returns where the counter is, by the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
///
/// A controller belongs to one of the two versions of control groups: to the old one if a group with its name is listed.
fn counter_path(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let mut groups = cgroup.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    });
    let old = groups.clone().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    let (group, file, is_ours): (&str, &str, fn(&Mount) -> bool) = match old {
        Some((_, group)) => (group, "memory.oom_control", |mount| mount.kind == "cgroup" && mount.has_option("memory")),
        None => {
            let (_, group) = groups.find(|(controllers, _)| controllers.is_empty())?;
            (group, "memory.events", |mount| mount.kind == "cgroup2")
        }
    };
    mountinfo.lines().filter_map(Mount::parse).filter(is_ours).find_map(|mount| {
        // A part of the hierarchy may be mounted, as in a container.
        let below = Path::new(group).strip_prefix(mount.root).ok()?;
        Some(Path::new(mount.point).join(below).join(file))
    })
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        // A number of optional fields ends in a dash.
        let (before, after) = line.split_once(" - ")?;
        let (mut before, mut after) = (before.split(' ').skip(3), after.split(' '));
        let (root, point) = (before.next()?, before.next()?);
        let (kind, _source, options) = (after.next()?, after.next()?, after.next()?);
        Some(Mount { root, point, kind, options })
    }

    fn has_option(&self, name: &str) -> bool {
        self.options.split(',').any(|option| option == name)
    }
}

/// Returns the number after `oom_kill`, by the text of `memory.events` or `memory.oom_control`.
fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
23 98 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";
    const OLD: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:4 master:2 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const CONTAINER: &str = "\
1270 1269 0:29 /docker/0a1b /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,memory
";

    fn path(cgroup: &str, mountinfo: &str) -> Option<String> {
        counter_path(cgroup, mountinfo).map(|path| path.display().to_string())
    }

    #[test] // D-PF-11
    fn counter_is_found_in_either_version_of_control_groups() {
        let service = path("0::/system.slice/exampled.service\n", UNIFIED);
        assert_eq!(service.as_deref(), Some("/sys/fs/cgroup/system.slice/exampled.service/memory.events"));
        let old = "9:name=systemd:/\n4:cpu,memory:/pods/7\n1:cpu:/\n0::/\n";
        assert_eq!(path(old, OLD).as_deref(), Some("/sys/fs/cgroup/memory/pods/7/memory.oom_control"));
        // With a namespace of its own a container sees itself at the root.
        assert_eq!(path("0::/\n", UNIFIED).as_deref(), Some("/sys/fs/cgroup/memory.events"));
        let container = path("3:memory:/docker/0a1b/worker\n0::/docker/0a1b\n", CONTAINER);
        assert_eq!(container.as_deref(), Some("/sys/fs/cgroup/memory/worker/memory.oom_control"));
    }

    #[test] // D-PF-11
    fn counter_that_is_not_mounted_is_not_found() {
        for (cgroup, mountinfo) in [
            ("", UNIFIED),
            ("0::/\n", ""),
            ("0::/\n", CONTAINER),
            ("4:memory:/other\n", CONTAINER),
            ("4:memory:/docker/0a1b\n", UNIFIED),
            ("4:memory:/../other\n", CONTAINER),
            ("nonsense\n0:\n", "nonsense\n1 2 3 - cgroup2\n"),
        ] {
            assert_eq!(path(cgroup, mountinfo), None, "{cgroup} {mountinfo}");
        }
    }

    #[test] // D-PF-11, O-SD-19
    fn kills_are_read_from_either_file() {
        let events = "low 0\nhigh 12\nmax 4075\noom 31\noom_kill 17\noom_group_kill 2\n";
        assert_eq!(oom_kills(events), Some(17));
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        // As before Linux 4.13.
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 1\n"), None);
        assert_eq!(oom_kills("oom_kill many\n"), None);
        assert_eq!(oom_kills(""), None);
    }

    #[test] // D-PF-11, O-SD-19: two killed, two explained
    fn each_kill_explains_one_death() {
        let mut count = Count { seen: 5, unexplained: 0 };
        assert!(!count.claim(5));
        assert!(count.claim(7));
        assert!(count.claim(7));
        assert!(!count.claim(7));
        assert!(count.claim(8));
    }

    #[test] // D-PF-11, O-SD-19: a helper in the same group
    fn kill_of_another_process_explains_no_later_death() {
        let mut count = Count { seen: 5, unexplained: 0 };
        count.forget_old(6);
        assert!(count.claim(6), "its victim is reaped after the round");
        count.forget_old(7);
        count.forget_old(7);
        assert!(!count.claim(7));
    }

    #[test] // D-PF-11
    fn without_a_counter_nothing_is_known() {
        assert_eq!(OomKills::default().explain(), Killer::Unknown);
    }
}
