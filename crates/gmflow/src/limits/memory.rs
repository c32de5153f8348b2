//! How much memory this process may still take.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Memory that was there when the first question for it was asked, and what sets the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Available {
    /// Bytes.
    pub bytes: u64,
    /// What sets the bound, for messages, such as "free memory of this machine".
    pub bound: &'static str,
}

/// Bytes of a kibibyte, in which Linux counts.
const KIB: u64 = 1024;
/// Where the memory of control groups is told: of version 2 and of version 1.
const GROUPS: [(&str, &str); 2] = [("/sys/fs/cgroup", ""), ("/sys/fs/cgroup/memory", "memory")];
/// Limits above this are none: version 1 of control groups writes a very large number in their place.
const NO_LIMIT: u64 = 1 << 60;

/// The memory that this process could take when it was first asked for: the least of the machine's free memory, what the control groups
/// (containers) leave, and the limits of the process (`ulimit -v`, `ulimit -d`). `None` where the system does not tell.
///
/// It is asked for once: what the process takes later it may also use again, and the system does not tell how much of that is free.
pub fn available() -> Option<&'static Available> {
    static AVAILABLE: OnceLock<Option<Available>> = OnceLock::new();
    AVAILABLE.get_or_init(now).as_ref()
}

/// [`available`] at this moment.
fn now() -> Option<Available> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let status = read("/proc/self/status").unwrap_or_default();
    let machine = read("/proc/meminfo").and_then(|text| free_memory(&text));
    let limits = read("/proc/self/limits").unwrap_or_default();
    [
        (machine, "the free memory of this machine"),
        (group_memory(&read("/proc/self/cgroup").unwrap_or_default()), "the limit of its control group (container)"),
        (room_below(&limits, "Max address space", &status), "the limit of address space (ulimit -v)"),
        (room_below(&limits, "Max data size", &status), "the limit of data (ulimit -d)"),
    ]
    .into_iter()
    .filter_map(|(bytes, bound)| Some(Available { bytes: bytes?, bound }))
    .min_by_key(|available| available.bytes)
}

/// The number in the line of /proc that begins with `name`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(KIB))
}

/// What /proc/meminfo says can be taken, swap included.
fn free_memory(meminfo: &str) -> Option<u64> {
    let free = field(meminfo, "MemAvailable").or_else(|| field(meminfo, "MemFree"))?;
    Some(free.saturating_add(field(meminfo, "SwapFree").unwrap_or(0)))
}

/// What a limit of /proc/self/limits leaves. Memory that is reserved and not yet touched counts as free: the allocator gives it out.
fn room_below(limits: &str, name: &str, status: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?; // "unlimited" is no number
    let of = |name: &str| field(status, name).unwrap_or(0);
    let untouched = of("VmData").saturating_sub(of("RssAnon"));
    let taken = if name == "Max data size" { of("VmData") } else { of("VmSize") };
    Some(limit.saturating_sub(taken.saturating_sub(untouched)))
}

/// What the control groups of this process leave, the outer ones included.
fn group_memory(groups: &str) -> Option<u64> {
    let room = |(root, controller): (&str, &str)| -> Option<u64> {
        let mine = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let controllers = parts.nth(1)?;
            let fits = if controller.is_empty() {
                controllers.is_empty()
            } else {
                controllers.split(',').any(|c| c == controller)
            };
            fits.then_some(parts.next()?)
        })?;
        let root = Path::new(root);
        let own = root.join(mine.trim_start_matches('/'));
        // Within a container the path is often that of the machine outside, which is not there.
        let own = if own.is_dir() { own } else { root.to_owned() };
        own.ancestors().take_while(|group| group.starts_with(root)).filter_map(group_room).min()
    };
    GROUPS.into_iter().filter_map(room).min()
}

/// What one control group leaves; files that can be dropped from its cache count as free.
fn group_room(group: &Path) -> Option<u64> {
    let number = |names: [&str; 2]| {
        names.into_iter().find_map(|name| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok())
    };
    let limit = number(["memory.max", "memory.limit_in_bytes"]).filter(|limit| *limit < NO_LIMIT)?;
    let taken = number(["memory.current", "memory.usage_in_bytes"]).unwrap_or(0);
    let cache = fs::read_to_string(group.join("memory.stat")).ok().and_then(|text| {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value("total_inactive_file ").or_else(|| value("inactive_file "))
    });
    Some(limit.saturating_sub(taken.saturating_sub(cache.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_tells_is_read() {
        let meminfo = "MemTotal:  100 kB\nMemFree:  10 kB\nMemAvailable:   40 kB\nSwapFree:    2 kB\n";
        assert_eq!(free_memory(meminfo), Some(42 * KIB));
        assert_eq!(free_memory("MemFree: 10 kB"), Some(10 * KIB));
        assert_eq!(free_memory(""), None);
        let status = "VmSize:\t 500 kB\nRssAnon:\t 60 kB\nVmData:\t 260 kB\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max data size             1024000              unlimited            bytes     \n\
                      Max address space         unlimited            unlimited            bytes     \n";
        assert_eq!(room_below(limits, "Max data size", status), Some(1000 * KIB - 60 * KIB));
        assert_eq!(room_below(limits, "Max address space", status), None);
        let limits = limits.replace("Max address space         unlimited", "Max address space         614400   ");
        assert_eq!(room_below(&limits, "Max address space", status), Some(600 * KIB - 300 * KIB));
    }

    #[test]
    fn control_groups_of_both_versions_are_read() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).expect("written");
        let room = || group_room(root.path());
        assert_eq!(room(), None);
        write("memory.max", "max\n");
        assert_eq!(room(), None);
        write("memory.max", "1000\n");
        write("memory.current", "600\n");
        write("memory.stat", "anon 300\ninactive_file 250\n");
        assert_eq!(room(), Some(650));
        fs::remove_file(root.path().join("memory.max")).expect("removed");
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(room(), None);
        write("memory.limit_in_bytes", "2000\n");
        assert_eq!(room(), Some(1650));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_tells() {
        let available = available().expect("Linux tells");
        assert!(available.bytes > 0 && !available.bound.is_empty());
    }
}
