//! Signals that ask for a stop or a reload, held back until somebody hears them. Before the threads exist nobody does, and an
//! unheard one would kill.

use std::mem::MaybeUninit;

/// What is held back.
const HELD: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Holds signals back in this thread and in those that it starts.
pub fn hold() {
    mask(libc::SIG_BLOCK, &HELD);
}

/// Lets a terminal that is gone end this thread and those that it starts, as it ends most programs. For a command that has no
/// configuration to reload.
pub fn release_hangup() {
    mask(libc::SIG_UNBLOCK, &[libc::SIGHUP]);
}

/// Lets this thread take them: those that came meanwhile come now.
pub fn release() {
    mask(libc::SIG_UNBLOCK, &HELD);
}

/// Whether a stop was asked for meanwhile.
pub fn stop_waits() -> bool {
    wait(&[libc::SIGINT, libc::SIGTERM])
}

/// Whether any of them waits: for a command that has no configuration to reload.
pub fn any_waits() -> bool {
    wait(&HELD)
}

fn wait(signals: &[libc::c_int]) -> bool {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call fills the set, which is read only where it has; the numbers are signals.
    unsafe {
        libc::sigpending(set.as_mut_ptr()) == 0
            && signals.iter().any(|signal| libc::sigismember(set.as_ptr(), *signal) == 1)
    }
}

fn mask(how: libc::c_int, signals: &[libc::c_int]) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is made empty before anything is added or read; the numbers are signals.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), std::ptr::null_mut());
    }
}
