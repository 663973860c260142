//! How many threads a machine is good for: one for each physical core, slow cores left out.

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

/// Linux and Android: what the kernel's files say about the processors this process may use.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn system() -> Option<usize> {
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
    let mut cores = Vec::new(); // (siblings, speed)
    for cpu in allowed {
        let siblings =
            file(cpu, "topology/thread_siblings_list").unwrap_or_else(|| cpu.to_string());
        let speed = number(cpu, "cpu_capacity")
            .or_else(|| number(cpu, "cpufreq/cpuinfo_max_freq"))
            .unwrap_or(0);
        if !cores.iter().any(|(known, _)| *known == siblings) {
            cores.push((siblings, speed));
        }
    }
    let fastest = cores.iter().map(|core| core.1).max()?;
    Some(cores.iter().filter(|core| core.1 * 2 >= fastest).count())
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
}
