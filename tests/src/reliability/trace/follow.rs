//! The tracer.

use std::{fs, path::Path, process::Command};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Fault, Plan, Seen, calls::Call};

/// Traces the process `pid` by the plan in a file until it has ended, and writes what was seen into another one.
///
/// # Errors
/// In words, for the log.
pub fn follow(pid: &str, plan: &Path, out: &Path) -> Result<(), String> {
    let pid = Pid::from_raw(pid.parse().map_err(|_| format!("{pid} is no process"))?);
    let plan = fs::read(plan).map_err(|error| error.to_string())?;
    let plan: Plan = serde_json::from_slice(&plan).map_err(|error| error.to_string())?;
    let options = Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).map_err(|error| format!("it cannot be traced: {error}"))?;
    let mut following = Following { pid, plan, seen: Seen::default() };
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => following.stopped(status)?,
            Err(Errno::ECHILD) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let seen = serde_json::to_vec(&following.seen).map_err(|error| error.to_string())?;
    fs::write(out, seen).map_err(|error| error.to_string())
}

struct Following {
    pid: Pid,
    plan: Plan,
    seen: Seen,
}

impl Following {
    fn stopped(&mut self, status: WaitStatus) -> Result<(), String> {
        let (thread, signal) = match status {
            WaitStatus::PtraceEvent(thread, _, libc::PTRACE_EVENT_SECCOMP) => {
                self.at_call(thread)?;
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, ..) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => return Ok(()),
        };
        gone_is_fine(ptrace::cont(thread, signal))
    }

    /// A thread stands at the entry of a call.
    fn at_call(&mut self, thread: Pid) -> Result<(), String> {
        let Ok(mut registers) = ptrace::getregs(thread) else { return Ok(()) };
        let arguments =
            [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9];
        let call = Call { thread: thread.as_raw(), number: registers.orig_rax, arguments };
        let Some((kind, path)) = call.step() else { return Ok(()) };
        if !path.starts_with(&self.plan.under) {
            return Ok(());
        }
        self.seen.steps += 1;
        let of_kind = self.seen.kinds.entry(kind).or_default();
        *of_kind += 1;
        match &self.plan.fault {
            Fault::None => return Ok(()),
            Fault::Kill { at } if *at == self.seen.steps => self.kill()?,
            Fault::Cut { at, mount } if *at == self.seen.steps => {
                cut(mount)?;
                self.kill()?;
            }
            Fault::Fail { kind: wanted, from, count, errno }
                if *wanted == kind && *of_kind >= *from && *of_kind - from < *count =>
            {
                // A call without a number does nothing, and what the register says is its result.
                registers.orig_rax = u64::MAX;
                registers.rax = i64::from(-errno).cast_unsigned();
                gone_is_fine(ptrace::setregs(thread, registers))?;
            }
            _ => return Ok(()),
        }
        self.seen.fired.get_or_insert_with(|| format!("{kind:?} {}", path.display()));
        Ok(())
    }

    fn kill(&self) -> Result<(), String> {
        gone_is_fine(kill(self.pid, Signal::SIGKILL))
    }
}

fn gone_is_fine(result: Result<(), Errno>) -> Result<(), String> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Lets a mounted volume, ext4 or XFS, forget all that its disk does not have, its log included, as when the power fails:
/// `FS_IOC_SHUTDOWN` of the kernel with "no log flush". perl is what every Debian has that can say an ioctl.
pub(in crate::reliability) fn cut(mount: &Path) -> Result<(), String> {
    const SAY: &str = "open(my $d, '<', $ARGV[0]) or die $!; my $how = pack('L', 2); ioctl($d, 0x8004587d, $how) or die $!;";
    let status = Command::new("perl").args(["-e", SAY]).arg(mount).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} was not cut: {status}", mount.display())),
        Err(error) => Err(format!("perl does not start: {error}")),
    }
}
