//! How many clients there may be who look from outside.

use nix::unistd::{SysconfVar, sysconf};

/// Returns how many clients there may be of a kind of which there are `most` at best. All clients of both kinds together have a
/// quarter of the descriptors that this process may open: the rest is for the service.
pub(in crate::daemon) fn places(most: usize) -> usize {
    // The limit as it is now.
    let limit = sysconf(SysconfVar::OPEN_MAX).ok().flatten().and_then(|limit| usize::try_from(limit).ok());
    places_of(limit, most)
}

fn places_of(limit: Option<usize>, most: usize) -> usize {
    limit.map_or(most, |limit| most.min((limit / SHARE).max(FEWEST)))
}

/// Either kind has one descriptor in so many.
const SHARE: usize = 8;

/// One that looks all the time, and one more.
const FEWEST: usize = 2;

#[cfg(test)]
mod tests {
    use super::places_of;

    #[test] // O-CT-09
    fn clients_leave_descriptors_to_the_service() {
        for (limit, places) in
            [(None, 32), (Some(1024), 32), (Some(256), 32), (Some(64), 8), (Some(16), 2), (Some(3), 2)]
        {
            assert_eq!(places_of(limit, 32), places, "{limit:?}");
        }
    }
}
