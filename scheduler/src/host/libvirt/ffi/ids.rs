//! Which domains run, by id: `virConnectListDomains`. (The crate's wrapper knows of 512 at most.)

use virt::error::Error;

use super::{Connection, c_length};

/// The most domains that libvirt's protocol carries in one answer.
const MAX_DOMAINS: usize = 16_384;

/// The ids of the running domains, ascending; `expected` is about how many there are.
pub(in crate::host::libvirt) fn running_ids(
    connection: &Connection,
    expected: usize,
) -> Result<Vec<u32>, Error> {
    let mut room = expected.saturating_add(64).min(MAX_DOMAINS);
    loop {
        let mut ids = vec![0; room];
        // SAFETY: the connection is open for as long as it is borrowed; `ids` has room for as many ids as is said, which
        // is few enough for C's int.
        let count =
            unsafe { virt_sys::virConnectListDomains(connection.as_ptr(), ids.as_mut_ptr(), c_length(room)) };
        let Ok(count) = usize::try_from(count) else {
            return Err(Error::last_error());
        };
        // A full list may not be all of it.
        if count >= room && room < MAX_DOMAINS {
            room = (room * 2).min(MAX_DOMAINS);
            continue;
        }
        let mut ids: Vec<u32> = ids
            .into_iter()
            .take(count)
            .filter_map(|id| u32::try_from(id).ok())
            .collect();
        ids.sort_unstable();
        return Ok(ids);
    }
}
