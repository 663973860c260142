//! A page of a map that cannot be read, since its file was truncated or its disk is gone, raises SIGBUS, which ends the process. Here it becomes a mark
//! on the map: a handler puts pages of zeros where the map cannot be read, and whoever reads it asks afterwards ([`Watch::faulted`]) whether what was
//! read was the file.
//!
//! To jump or unwind out of the handler would skip the frames of whatever code reads the map, which is undefined behaviour in Rust, and leave the
//! locks of other threads held. So the reading goes on, with zeros.
//!
//! A signal's handler belongs to the whole process. This one looks only at maps that are in its table, and hands every other fault to the handler
//! that was there before it, or to the system's default.

use std::sync::atomic::{AtomicBool, Ordering};

static WANTED: AtomicBool = AtomicBool::new(true);

/// Whether a fault in the map of a file that is opened from now on becomes [`Error::FileChanged`](crate::Error::FileChanged), by a handler for SIGBUS
/// that the first such file installs; it is on unless this turns it off. Without it, truncating an open file can end the process. An app with a
/// handler of its own keeps it: install that first, and faults outside the maps reach it.
pub fn handle_map_faults(on: bool) {
    WANTED.store(on, Ordering::Relaxed);
}

#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
mod handler {
    use super::WANTED;
    use libc::{c_int, c_void, sigaction, siginfo_t};
    use std::ptr::{null, null_mut};
    use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
    use std::sync::{Once, OnceLock};

    /// A place for one map. Places are never freed, so that the handler can walk over them without a lock; they are used again.
    struct Place {
        /// Its first address, or [`FREE`] or [`TAKEN`].
        start: AtomicUsize,
        /// Behind its last page.
        end: AtomicUsize,
        faulted: AtomicBool,
        /// Written before the place is in the list.
        next: AtomicPtr<Place>,
    }

    /// No address is as high as these.
    const FREE: usize = usize::MAX;
    const TAKEN: usize = usize::MAX - 1;

    static PLACES: AtomicPtr<Place> = AtomicPtr::new(null_mut());
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    static INSTALL: Once = Once::new();
    static BEFORE: OnceLock<sigaction> = OnceLock::new();

    /// All places.
    fn places() -> impl Iterator<Item = &'static Place> {
        let mut next = PLACES.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            // SAFETY: the pointers in the list come from `Box::leak`, and the list ends with null.
            let place: &'static Place = unsafe { next.as_ref() }?;
            next = place.next.load(Ordering::Relaxed);
            Some(place)
        })
    }

    /// A map whose faults are marked, as long as this lives.
    pub(in crate::gguf) struct Watch(Option<&'static Place>);

    impl Watch {
        /// Watches the map `bytes`, whose pages are its alone, and which must outlive this.
        pub(in crate::gguf) fn new(bytes: &[u8]) -> Watch {
            if !WANTED.load(Ordering::Relaxed) {
                return Watch(None);
            }
            INSTALL.call_once(install);
            let page = PAGE.load(Ordering::Relaxed);
            if page == 0 {
                return Watch(None);
            }
            let take = |place: &&Place| {
                let taken =
                    place
                        .start
                        .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed);
                taken.is_ok()
            };
            let place = places().find(take).unwrap_or_else(add);
            let start = bytes.as_ptr() as usize;
            place.faulted.store(false, Ordering::Relaxed);
            let end = (start + bytes.len()).next_multiple_of(page);
            place.end.store(end, Ordering::Relaxed);
            place.start.store(start, Ordering::Release);
            Watch(Some(place))
        }

        /// Whether something that was read from the map was not the file.
        pub(in crate::gguf) fn faulted(&self) -> bool {
            self.0.is_some_and(|p| p.faulted.load(Ordering::Acquire))
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            if let Some(place) = self.0 {
                place.start.store(FREE, Ordering::Release);
            }
        }
    }

    /// A new place, which is taken.
    fn add() -> &'static Place {
        let place: &'static mut Place = Box::leak(Box::new(Place {
            start: AtomicUsize::new(TAKEN),
            end: AtomicUsize::new(0),
            faulted: AtomicBool::new(false),
            next: AtomicPtr::new(null_mut()),
        }));
        let new: *mut Place = place;
        // SAFETY: it is never freed, and from here on only read through shared references.
        let place: &'static Place = unsafe { &*new };
        let mut first = PLACES.load(Ordering::Relaxed);
        loop {
            place.next.store(first, Ordering::Relaxed);
            match PLACES.compare_exchange_weak(first, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return place,
                Err(other) => first = other,
            }
        }
    }

    fn install() {
        // SAFETY: `sysconf` has no conditions. Both actions are whole structs; zeros are an action with an empty mask. `handle` has the signature
        // that SA_SIGINFO asks for, and does only what a handler may: atomic loads and stores, and system calls.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE);
            let mut before: sigaction = std::mem::zeroed();
            if page <= 0 || libc::sigaction(libc::SIGBUS, null(), &mut before) != 0 {
                return;
            }
            let _ = BEFORE.set(before);
            let mut action: sigaction = std::mem::zeroed();
            let handle: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            if libc::sigaction(libc::SIGBUS, &action, null_mut()) == 0 {
                PAGE.store(page as usize, Ordering::Relaxed);
            }
        }
    }

    extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // SAFETY: the system hands the handler a valid `info`.
        let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
        if is_sent(code) || !put_zeros(address) {
            pass_on(signal, info, context);
        }
    }

    /// Whether a process sent the signal: such codes are not positive on Linux, and begin at 0x10001 on Apple's systems.
    fn is_sent(code: c_int) -> bool {
        code <= 0 || code > 0x10000
    }

    /// Replaces the unreadable page at `address`, and the pages after it, if they are those of a watched map.
    fn put_zeros(address: usize) -> bool {
        let page = PAGE.load(Ordering::Relaxed);
        for place in places() {
            let start = place.start.load(Ordering::Acquire);
            let end = place.end.load(Ordering::Relaxed);
            // Acquire on the first load and this one: `end` belongs to `start`.
            std::sync::atomic::fence(Ordering::Acquire);
            let is_same = place.start.load(Ordering::Relaxed) == start;
            if !(start <= address && address < end && is_same) {
                continue;
            }
            place.faulted.store(true, Ordering::SeqCst);
            let from = address & !(page - 1);
            // SAFETY: these pages are the map's own, to the end of its last one: nothing else lies there, and what reads them has no claim on what
            // they hold once their file is gone. `mmap` is a system call and nothing more.
            let zeros = unsafe {
                libc::mmap(
                    from as *mut c_void,
                    end - from,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            return zeros != libc::MAP_FAILED;
        }
        false
    }

    /// Does with a signal what would have been done without this handler.
    fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        let Some(before) = BEFORE.get() else {
            return;
        };
        // SAFETY: what was installed before is a handler of the kind that its flags say, or one of the two constants. After a return from a fault with
        // the old action in place the access is repeated, and meets that action.
        unsafe {
            match before.sa_sigaction {
                libc::SIG_IGN if is_sent((*info).si_code) => {}
                libc::SIG_DFL | libc::SIG_IGN => {
                    libc::sigaction(signal, before, null_mut());
                    if is_sent((*info).si_code) {
                        libc::raise(signal);
                    }
                }
                handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
                    type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                    std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
                }
                handler => {
                    std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
                }
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
mod handler {
    /// Here nothing is watched.
    pub(in crate::gguf) struct Watch;

    impl Watch {
        pub(in crate::gguf) fn new(_: &[u8]) -> Watch {
            Watch
        }

        pub(in crate::gguf) fn faulted(&self) -> bool {
            false
        }
    }
}

pub(super) use handler::Watch;
