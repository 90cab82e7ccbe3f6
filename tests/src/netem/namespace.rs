//! A network namespace with one TUN device, removed when it is dropped.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

/// The beginning of the name of every namespace; the process's number follows.
const PREFIX: &str = "avalon-netem-";
/// As on nearly every link between sites.
pub(super) const MTU: u16 = 1500;
/// Packets between a program and the forwarder, so that the buffer that is emulated is the only one that overflows.
const DEVICE_QUEUE: &str = "20000";
/// Windows of kernel TCP: far above any bandwidth-delay product here, so that what is measured is its congestion control.
const TCP_BUFFERS: &str = "4096 262144 67108864";

/// One end of a link.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
}

impl Namespace {
    /// Makes a namespace whose one device has `address` in a network of 24 bits.
    pub(super) fn create(number: u32, address: Ipv4Addr) -> io::Result<(Self, SyncDevice)> {
        let pid = std::process::id();
        let namespace = Self { name: format!("{PREFIX}{pid}-{number}"), address };
        let device_name = format!("av{pid}x{number}");
        let device = DeviceBuilder::new().name(&device_name).enable(false).build_sync()?;
        device.set_nonblocking(true)?;
        let name = namespace.name.as_str();
        ip(&["netns", "add", name])?;
        ip(&["link", "set", &device_name, "netns", name])?;
        namespace.set("net/ipv6/conf/all/disable_ipv6", "1").ok();
        namespace.set("net/ipv4/tcp_rmem", TCP_BUFFERS)?;
        namespace.set("net/ipv4/tcp_wmem", TCP_BUFFERS)?;
        // Without memory of earlier connections every run is the first.
        namespace.set("net/ipv4/tcp_no_metrics_save", "1")?;
        // The better baseline on a lossy link; a kernel without it stays at its own.
        namespace.set("net/ipv4/tcp_congestion_control", "bbr").ok();
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", &device_name])?;
        let mtu = MTU.to_string();
        ip(&["-n", name, "link", "set", &device_name, "mtu", &mtu, "txqueuelen", DEVICE_QUEUE, "up"])?;
        Ok((namespace, device))
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Writes a kernel setting of the namespace.
    fn set(&self, key: &str, value: &str) -> io::Result<()> {
        let path = Path::new("/proc/sys").join(key);
        let value = value.to_owned();
        self.within(move || fs::write(path, value))?
    }

    /// Runs `work` in a thread whose sockets belong to the namespace.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let file = File::open(self.path())?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Returns a command that runs in the namespace; its process is that of `program`.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("{error}; it is removed when this program runs the next time");
        }
    }
}

/// Removes namespaces of processes that are gone: those that were killed could not do it.
pub(super) fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            ip(&["netns", "delete", &name]).ok();
        }
    }
}

fn ip(args: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| io::Error::other(format!("cannot run ip (package iproute2): {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", args.join(" "), said.trim())))
}
