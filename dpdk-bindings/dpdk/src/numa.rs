//! Which NUMA node new memory comes from.

use std::ptr;

use nix::libc;

/// `MPOL_DEFAULT` and `MPOL_PREFERRED` of `set_mempolicy(2)`.
const DEFAULT: libc::c_int = 0;
const PREFERRED: libc::c_int = 1;
/// Nodes that a mask has a bit for: more than kernels are built for (`CONFIG_NODES_SHIFT` 10).
const NODES: usize = 1024;

type Word = libc::c_ulong;

/// Runs `make`; pages that this thread touches first meanwhile come from `node`, as long as that has any.
///
/// With `None`, and where the kernel does not have it (no NUMA, or forbidden in a container), they come from the node of the
/// CPU that the thread runs on, as always. Source: `set_mempolicy(2)`.
pub fn on_node<T>(node: Option<u32>, make: impl FnOnce() -> T) -> T {
    let Some(node) = node.and_then(|node| usize::try_from(node).ok()).filter(|node| *node < NODES) else { return make() };
    let mut mask = [0; NODES / Word::BITS as usize];
    mask[node / Word::BITS as usize] = 1 << (node % Word::BITS as usize);
    let _back = Back(set(PREFERRED, Some(&mask)));
    make()
}

/// Sets the thread back to the default, also when `make` panics; nothing if it never left that.
struct Back(bool);

impl Drop for Back {
    fn drop(&mut self) {
        if self.0 {
            set(DEFAULT, None);
        }
    }
}

fn set(policy: libc::c_int, mask: Option<&[Word; NODES / Word::BITS as usize]>) -> bool {
    let (mask, bits) = mask.map_or((ptr::null(), 0), |mask| (mask.as_ptr(), NODES as Word));
    // SAFETY: `mask` is null or has as many bits as are named; the kernel only reads it.
    unsafe { libc::syscall(libc::SYS_set_mempolicy, policy, mask, bits) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hugemem::HugeArray;

    /// The policy of the mapping that has an address, as `numa_maps` has it; `None` on a kernel without NUMA.
    fn policy(address: *const u8) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/thread-self/numa_maps").ok()?;
        let start = |line: &str| usize::from_str_radix(line.split(' ').next()?, 16).ok();
        let line = maps.lines().rfind(|line| start(line).is_some_and(|start| start <= address.addr()))?;
        line.split(' ').nth(1).map(str::to_owned)
    }

    #[test]
    fn policy_holds_meanwhile_and_not_afterwards() {
        if !std::path::Path::new("/proc/thread-self/numa_maps").exists() {
            assert_eq!(on_node(Some(0), || 7), 7, "without NUMA it only runs");
            return;
        }
        on_node(Some(0), || {
            let mut array = HugeArray::<u64>::anonymous(1 << 20).unwrap();
            array.prefault().unwrap();
            assert_eq!(policy(array.as_ptr().cast()).unwrap(), "prefer:0");
        });
        let array = HugeArray::<u64>::anonymous(1 << 20).unwrap();
        assert_eq!(policy(array.as_ptr().cast()).unwrap(), "default");
    }

    #[test]
    fn node_that_is_not_there_is_no_fault() {
        for node in [None, Some(63), Some(1023), Some(u32::MAX)] {
            assert_eq!(on_node(node, || 7), 7);
        }
    }
}
