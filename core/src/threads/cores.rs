//! How many threads a machine is good for, and where they run: one for each physical core, slow cores left out.

use std::num::NonZero;

/// One thread for each fast physical core that this process may use, at least one.
///
/// A second thread on a core shares the arithmetic units that one thread already fills; a core of less than half the speed holds up less than
/// it adds once work is claimed in chunks, and costs battery.
#[must_use]
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, NonZero::get);
    system().map_or(allowed, |cores| cores.clamp(1, allowed))
}

/// Keeps the calling thread, one of `threads`, on the fast cores, where there are slow ones too and enough fast ones. The system still chooses among them.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn prefer_fast(threads: usize) {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let Some(cores) = cores() else { return };
    let fast = fast(&cores);
    if fast.len() == cores.len() || fast.len() < threads {
        return;
    }
    let mut set = CpuSet::new();
    for core in fast {
        let inside = core.cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU);
        inside.for_each(|&cpu| set.set(cpu));
    }
    // Where the system does not allow it, the thread runs where the system likes.
    let _ = sched_setaffinity(None, &set);
}

/// Apple: asks for the quality of service of what a person waits for, which runs on the performance cores.
#[cfg(target_vendor = "apple")]
pub(super) fn prefer_fast(_threads: usize) {
    use std::ffi::{c_int, c_uint};
    const QOS_CLASS_USER_INITIATED: c_uint = 0x19;
    unsafe extern "C" {
        fn pthread_set_qos_class_self_np(class: c_uint, relative_priority: c_int) -> c_int;
    }
    // SAFETY: it concerns the calling thread alone; an error leaves everything as it was.
    unsafe { pthread_set_qos_class_self_np(QOS_CLASS_USER_INITIATED, 0) };
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(super) fn prefer_fast(_threads: usize) {}

/// A physical core.
#[cfg(any(target_os = "linux", target_os = "android", test))]
#[derive(Debug, PartialEq)]
struct Core {
    /// The processors on it that this process may use.
    cpus: Vec<usize>,
    /// Its capacity or greatest frequency, in a unit that all cores share; 0 where the system does not say.
    speed: u64,
}

/// Those of at least half the fastest one's speed.
#[cfg(any(target_os = "linux", target_os = "android", test))]
fn fast(cores: &[Core]) -> Vec<&Core> {
    let fastest = cores.iter().map(|core| core.speed).max().unwrap_or(0);
    let fast = cores.iter().filter(|core| core.speed * 2 >= fastest);
    fast.collect()
}

/// Linux and Android: what the kernel's files say about the processors this process may use.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn system() -> Option<usize> {
    cores().map(|cores| fast(&cores).len())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn cores() -> Option<Vec<Core>> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let allowed = parse_list(
        status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?,
    )?;
    let file = |cpu: usize, name: &str| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/{name}")).ok()
    };
    let number = |cpu: usize, name: &str| file(cpu, name)?.trim().parse::<u64>().ok();
    let mut cores: Vec<(String, Core)> = Vec::new(); // with their siblings
    for cpu in allowed {
        let siblings =
            file(cpu, "topology/thread_siblings_list").unwrap_or_else(|| cpu.to_string());
        let speed = number(cpu, "cpu_capacity")
            .or_else(|| number(cpu, "cpufreq/cpuinfo_max_freq"))
            .unwrap_or(0);
        match cores.iter_mut().find(|(known, _)| *known == siblings) {
            Some((_, core)) => core.cpus.push(cpu),
            None => {
                let cpus = vec![cpu];
                cores.push((siblings, Core { cpus, speed }));
            }
        }
    }
    Some(cores.into_iter().map(|(_, core)| core).collect())
}

/// Numbers and ranges, as `0-3,8`.
#[cfg(any(target_os = "linux", target_os = "android", test))]
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last.checked_sub(first)? > 4096 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Apple: the number of physical cores of the fastest kind.
#[cfg(target_vendor = "apple")]
fn system() -> Option<usize> {
    use std::ffi::{CStr, c_char, c_int, c_void};
    unsafe extern "C" {
        fn sysctlbyname(
            name: *const c_char,
            old: *mut c_void,
            old_length: *mut usize,
            new: *mut c_void,
            new_length: usize,
        ) -> c_int;
    }
    let read = |name: &CStr| {
        let (mut cores, mut length): (c_int, usize) = (0, size_of::<c_int>());
        // SAFETY: the name ends in NUL; the system writes at most `length` bytes into an integer of that size.
        let error = unsafe {
            sysctlbyname(
                name.as_ptr(),
                (&raw mut cores).cast(),
                &mut length,
                std::ptr::null_mut(),
                0,
            )
        };
        (error == 0 && cores > 0).then_some(cores as usize)
    };
    read(c"hw.perflevel0.physicalcpu").or_else(|| read(c"hw.physicalcpu"))
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn system() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        assert_eq!(parse_list("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_list("5"), Some(vec![5]));
        assert_eq!(parse_list("3-1"), None);
        assert_eq!(parse_list("0-99999999"), None);
        assert!(default_threads() >= 1);
    }

    #[test]
    fn slow_cores_are_those_below_half_the_speed() {
        let core = |cpu, speed| Core {
            cpus: vec![cpu],
            speed,
        };
        let phone = [core(0, 350), core(1, 350), core(2, 800), core(3, 1024)];
        assert_eq!(fast(&phone), [&phone[2], &phone[3]]);
        let unknown = [core(0, 0), core(1, 0)];
        assert_eq!(fast(&unknown).len(), 2);
    }
}
