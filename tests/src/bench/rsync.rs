//! rsync as a daemon of its own, with and without fsync, and rsync over an ssh server of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    contender::{Contender, Round},
    ends::{Ends, FAR, NEAR, is_installed, timed, until},
};
use crate::daemons::process::Process;

const START_LIMIT: Duration = Duration::from_secs(20);

/// An rsync that fetches.
#[derive(Debug)]
pub struct Rsync<'a> {
    ends: &'a Ends,
    name: &'static str,
    /// Between `rsync` and the source.
    options: Vec<String>,
    /// What stands before the source's path.
    prefix: String,
    server: Option<Process>,
}

/// Starts an rsync daemon that serves all of `dir`; nothing when rsync is not installed.
pub fn daemon<'a>(ends: &'a Ends, dir: &Path, name: &'static str, options: &[&str]) -> Option<Rsync<'a>> {
    if !is_installed("rsync") {
        return None;
    }
    let config = dir.join(format!("{name}.conf"));
    let text = "use chroot = no\nreverse lookup = no\n[all]\npath = /\nread only = yes\nuid = 0\ngid = 0\n";
    fs::write(&config, text).expect("a file in a fresh directory");
    let (address, port) = (ends.address(NEAR), ends.free_port(NEAR));
    let mut command = ends.server(NEAR, "rsync");
    command.args(["--daemon", "--no-detach", &format!("--address={address}"), &format!("--port={port}")]);
    command.arg("--config").arg(&config);
    let server = Process::start(&mut command);
    let prefix = format!("rsync://{address}:{port}/all");
    let options = options.iter().map(|option| (*option).to_owned()).collect();
    let rsync = Rsync { ends, name, options, prefix: prefix.clone(), server: Some(server) };
    let answers = until(START_LIMIT, || quiet(ends.command(FAR, "rsync").arg(&prefix)));
    assert!(answers, "the rsync daemon does not answer");
    Some(rsync)
}

/// Starts an ssh server with keys of its own; nothing when rsync or ssh is not installed.
pub fn over_ssh<'a>(ends: &'a Ends, dir: &Path) -> Option<Rsync<'a>> {
    if !["rsync", "ssh", "sshd", "ssh-keygen"].into_iter().all(is_installed) {
        return None;
    }
    let (host_key, key, config) = (dir.join("host-key"), dir.join("key"), dir.join("sshd.conf"));
    for file in [&host_key, &key] {
        let mut command = Command::new("ssh-keygen");
        assert!(quiet(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file)), "no key");
    }
    let (address, port) = (ends.address(NEAR), ends.free_port(NEAR));
    let text = format!(
        "Port {port}\nListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}.pub\nStrictModes no\nUsePAM \
         no\nPidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
        host_key.display(),
        key.display()
    );
    fs::write(&config, text).expect("a file in a fresh directory");
    // Where sshd shuts its unprivileged half in; its service would make it.
    fs::create_dir_all("/run/sshd").ok();
    let mut command = ends.server(NEAR, "/usr/sbin/sshd");
    let server = Process::start(command.args(["-D", "-e", "-f"]).arg(&config));
    let ssh = format!(
        "ssh -i {} -p {port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o \
         BatchMode=yes -F none",
        key.display()
    );
    let mut words = ssh.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let program = words.remove(0);
    let answers =
        || quiet(ends.command(FAR, &program).args(&words).arg(format!("root@{address}")).arg("true"));
    if !until(START_LIMIT, answers) {
        println!("the ssh server does not let us in, that baseline is left out:\n{}", server.log.text());
        return None;
    }
    let options = vec!["-e".into(), ssh];
    Some(Rsync { ends, name: "rsync-ssh", options, prefix: format!("root@{address}:"), server: Some(server) })
}

impl Rsync<'_> {
    /// Fetches a directory into another, which may have older files.
    pub fn copy(&self, source: &Path, target: &Path, limit: Duration) -> Option<Duration> {
        let mut command = self.ends.command(FAR, "rsync");
        command.arg("-a").args(&self.options);
        command.arg(format!("{}{}/", self.prefix, source.display())).arg(target);
        timed(&mut command, limit)
    }
}

impl Contender for Rsync<'_> {
    fn name(&self) -> String {
        self.name.into()
    }

    fn servers(&mut self) -> Vec<u32> {
        self.server.iter().map(Process::pid).collect()
    }

    fn fetch(&mut self, round: &Round<'_>) -> Option<Duration> {
        let target: PathBuf = round.target.join("rsync");
        fs::create_dir_all(&target).expect("the disk has room");
        self.copy(round.source, &target, round.limit)
    }
}

fn quiet(command: &mut Command) -> bool {
    command.stdin(std::process::Stdio::null());
    command.output().is_ok_and(|output| output.status.success())
}
