//! The exit codes of `avalonctl` and `avalond`: a closed list. A script treats an unknown code as failure.

/// Why a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitCode {
    /// 0: done.
    Ok,
    /// 1: it failed for a reason that has no code of its own.
    Error,
    /// 2: the command line or the configuration is wrong.
    Usage,
    /// 3: part of it was done, the summary says which; or a publish was recorded, with problems.
    Partial,
    /// 4: nothing by that name.
    NotFound,
    /// 5: the daemon does not answer.
    DaemonUnreachable,
    /// 6: no site that can be reached holds it.
    NoSource,
    /// 7: the disk or the quota is full.
    DiskFull,
    /// 8: content does not match its hash, or versions conflict.
    Integrity,
    /// 9: not authorised, or something is wrong with a certificate.
    Denied,
    /// 10: the time is over; the job goes on in the daemon.
    TimedOut,
    /// 130: interrupted by the user.
    Interrupted,
}

impl ExitCode {
    /// All of them, for the documentation's test.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::Error,
        Self::Usage,
        Self::Partial,
        Self::NotFound,
        Self::DaemonUnreachable,
        Self::NoSource,
        Self::DiskFull,
        Self::Integrity,
        Self::Denied,
        Self::TimedOut,
        Self::Interrupted,
    ];

    /// Returns the number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::NotFound => 4,
            Self::DaemonUnreachable => 5,
            Self::NoSource => 6,
            Self::DiskFull => 7,
            Self::Integrity => 8,
            Self::Denied => 9,
            Self::TimedOut => 10,
            Self::Interrupted => 130,
        }
    }
}
